#include "runner_common.h"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <new>
#include <numeric>
#include <sstream>
#include <utility>

#include "marker.h"

namespace edgekit {
namespace {

constexpr int kUsage = 2;
constexpr int kFailed = 4;

// ---------------------------------------------------------------- JSON

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char character : text) {
        const auto code = static_cast<unsigned char>(character);
        if (character == '"' || character == '\\') {
            out += '\\';
            out += character;
        } else if (code < 0x20) {
            char buffer[8];
            std::snprintf(buffer, sizeof buffer, "\\u%04x", code);
            out += buffer;
        } else {
            out += character;
        }
    }
    out += '"';
    return out;
}

template <typename Items, typename Print>
std::string array_of(const Items& items, Print print) {
    std::string out = "[";
    for (const auto& item : items) {
        if (out.size() > 1) out += ", ";
        out += print(item);
    }
    out += "]";
    return out;
}

using Fields = std::vector<std::pair<const char*, std::string>>;  // names, and values that are JSON already

std::string object_of(const Fields& fields, const char* separator = ", ") {
    std::string out = "{";
    for (const auto& [name, value] : fields) {
        if (out.size() > 1) out += separator;
        out += quoted(name);
        out += ": ";
        out += value;
    }
    out += "}";
    return out;
}

std::string number(std::int64_t value) { return std::to_string(value); }

std::string number_or_null(const std::optional<std::int64_t>& value) { return value ? number(*value) : "null"; }

std::string boolean(bool value) { return value ? "true" : "false"; }

// ---------------------------------------------------------------- files

std::string read_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Bytes read_input(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw Failure("input", "cannot open the input file " + path);
    Bytes data(static_cast<std::size_t>(file.tellg()));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
    if (!file) throw Failure("input", "cannot read the input file " + path);
    return data;
}

void write_file(const std::string& path, const void* data, std::size_t size) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
    file.flush();
    if (!file) throw Failure("output", "cannot write " + path);
}

// ---------------------------------------------------------------- memory

std::int64_t heap_bytes_now() {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    const struct mallinfo2 info = mallinfo2();
#else
    const struct mallinfo info = mallinfo();  // bionic's has size_t fields, older glibc's wrap at 2 GiB
#endif
    return static_cast<std::int64_t>(info.uordblks) + static_cast<std::int64_t>(info.hblkhd);
}

// Resident memory, from the kernel's list of mappings. Under user-mode emulation /proc/self/status is the emulator's own,
// so that its VmHWM would charge the translator to the model; /proc/self/maps is the guest's alone, and that tells which
// of the mappings in smaps are the model's.
class ResidentMemory {
  public:
    void sample() { largest_ = std::max(largest_, now()); }

    // The kernel's high-water mark on a real machine; the largest sample under emulation.
    std::int64_t peak_bytes() {
        sample();
        if (emulated_) return largest_;
        const std::string status = read_text("/proc/self/status");
        const auto at = status.find("VmHWM:");
        return at == std::string::npos ? largest_ : std::strtoll(status.c_str() + at + 6, nullptr, 10) * 1024;
    }

    bool emulated() const { return emulated_; }

  private:
    std::int64_t now() {
        const std::vector<std::pair<std::uint64_t, std::uint64_t>> own = ranges();
        std::ifstream smaps("/proc/self/smaps");
        std::int64_t total = 0;
        bool counted = false;
        for (std::string line; std::getline(smaps, line);) {
            std::uint64_t begin = 0;
            std::uint64_t end = 0;
            if (parse_range(line, begin, end)) {
                counted = std::any_of(own.begin(), own.end(),
                                      [&](const auto& range) { return begin < range.second && range.first < end; });
                if (!counted) emulated_ = true;
            } else if (counted && line.compare(0, 4, "Rss:") == 0) {
                total += std::strtoll(line.c_str() + 4, nullptr, 10) * 1024;
            }
        }
        return total;
    }

    static std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges() {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
        std::ifstream maps("/proc/self/maps");
        for (std::string line; std::getline(maps, line);) {
            std::uint64_t begin = 0;
            std::uint64_t end = 0;
            if (parse_range(line, begin, end)) found.emplace_back(begin, end);
        }
        return found;
    }

    static bool parse_range(const std::string& line, std::uint64_t& begin, std::uint64_t& end) {
        const char* last = line.data() + line.size();
        const auto first = std::from_chars(line.data(), last, begin, 16);
        if (first.ec != std::errc() || first.ptr == last || *first.ptr != '-') return false;
        return std::from_chars(first.ptr + 1, last, end, 16).ec == std::errc();
    }

    std::int64_t largest_ = 0;
    bool emulated_ = false;
};

// ---------------------------------------------------------------- command line

const char* const kHelp =
    "usage: RUNNER --model FILE --input FILE... --output-dir DIR --result FILE.json\n"
    "              [--shape N,N,N...] [--warmup N] [--runs N] [--threads N] [--operators] [--profile-nodes]\n";

class UsageError : public std::exception {
  public:
    explicit UsageError(std::string message) : message_(std::move(message)) {}
    const char* what() const noexcept override { return message_.c_str(); }

  private:
    std::string message_;
};

int parse_count(const std::string& name, const std::string& text, int least) {
    int value = 0;
    const auto end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value);
    if (parsed.ec != std::errc() || parsed.ptr != end || value < least) {
        throw UsageError(name + ": expected a whole number from " + std::to_string(least) + "; received '" + text + "'");
    }
    return value;
}

std::vector<std::int64_t> parse_shape(const std::string& text) {
    std::vector<std::int64_t> shape;
    std::istringstream words(text);
    for (std::string word; std::getline(words, word, ',');) shape.push_back(parse_count("--shape", word, 1));
    return shape;
}

Options parse(int argc, char** argv) {
    Options options;
    for (int at = 1; at < argc; ++at) {
        const std::string name = argv[at];
        if (name == "--operators" || name == "--profile-nodes") {
            (name == "--operators" ? options.operators : options.profile_nodes) = true;
            continue;
        }
        if (at + 1 >= argc) throw UsageError("expected a value after " + name);
        const std::string value = argv[++at];
        if (name == "--model") {
            options.model = value;
        } else if (name == "--input") {
            options.inputs.push_back(value);
        } else if (name == "--shape") {
            options.shapes.push_back(parse_shape(value));
        } else if (name == "--output-dir") {
            options.output_dir = value;
        } else if (name == "--result") {
            options.result = value;
        } else if (name == "--warmup") {
            options.warmup = parse_count(name, value, 0);
        } else if (name == "--runs") {
            options.runs = parse_count(name, value, 1);
        } else if (name == "--threads") {
            options.threads = parse_count(name, value, 1);
        } else {
            throw UsageError("unknown option " + name);
        }
    }
    if (options.model.empty() || options.output_dir.empty() || options.result.empty()) {
        throw UsageError("--model, --output-dir and --result are required");
    }
    return options;
}

// ---------------------------------------------------------------- the run

using Sample = std::vector<Bytes>;

std::int64_t nanoseconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const auto elapsed = std::chrono::steady_clock::now() - start;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count();
}

// One run of an artifact: load, warm up, count one inference, time more of them, then whatever else was asked for.
class Run {
  public:
    Run(const Options& options, EngineFactory make_engine) : options_(options), make_engine_(make_engine) {}

    std::string execute() {
        engine_ = make_engine_(options_);
        load_ns_ = nanoseconds_of([this] {
            edgekit_mark(EDGEKIT_LOAD_BEGIN, 0, 0);
            engine_->load();
            edgekit_mark(EDGEKIT_LOAD_END, 0, 0);
        });
        sample_memory();
        read_inputs();
        const Sample first = run_first();
        count_one();
        repeats_ = outputs() == first;
        for (int run = 1; run < options_.runs; ++run) run_ns_.push_back(nanoseconds_of([this] { engine_->run(); }));
        sample_memory();
        arena_bytes_ = engine_->arena_bytes();
        const std::int64_t peak = memory_.peak_bytes();  // before what only looks: more samples, the profiler
        write_outputs(first);
        if (options_.operators) operators_ = engine_->operators();
        return result(peak);
    }

  private:
    void read_inputs() {
        const std::vector<Tensor>& inputs = engine_->inputs();
        if (options_.inputs.size() != inputs.size()) {
            throw Failure("input", "expected " + std::to_string(inputs.size()) + " input files; received " +
                                       std::to_string(options_.inputs.size()));
        }
        for (std::size_t at = 0; at < inputs.size(); ++at) {
            const std::size_t bytes = inputs[at].bytes();
            files_.push_back(read_input(options_.inputs[at]));
            const std::size_t size = files_.back().size();
            const std::size_t samples = bytes == 0 ? 0 : size / bytes;
            if (samples == 0 || size % bytes != 0 || (at > 0 && samples != samples_)) {
                throw Failure("input", "input '" + inputs[at].name + "' of " + inputs[at].dtype + " " +
                                           shape_text(inputs[at].shape) + ": expected " + std::to_string(bytes) +
                                           " bytes a sample, and as many samples in every file; received " +
                                           std::to_string(size) + " bytes");
            }
            samples_ = samples;
        }
    }

    void set_inputs(std::size_t sample) {
        const std::vector<Tensor>& inputs = engine_->inputs();
        for (std::size_t at = 0; at < inputs.size(); ++at) {
            engine_->set_input(at, files_[at].data() + sample * inputs[at].bytes());
        }
    }

    Sample outputs() {
        Sample found;
        for (std::size_t at = 0; at < engine_->outputs().size(); ++at) found.push_back(engine_->output(at));
        return found;
    }

    // Warms up, and keeps what the first inference after loading gave: later ones of a model with state differ.
    Sample run_first() {
        Sample first;
        for (int run = 0; run < options_.warmup; ++run) {
            set_inputs(0);
            engine_->run();
            if (run == 0) first = outputs();
        }
        set_inputs(0);
        return first;
    }

    void count_one() {
        // The markers are within the clock readings: those are system calls, which may begin segments.
        run_ns_.push_back(nanoseconds_of([this] {
            edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
            engine_->run();
            edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
        }));
        sample_memory();
    }

    void write_outputs(const Sample& first) {
        std::vector<Bytes> joined = first.empty() ? outputs() : first;
        tensors_ = engine_->outputs();
        for (std::size_t sample = 1; sample < samples_; ++sample) {
            if (!repeats_) reload();
            set_inputs(sample);
            engine_->run();
            const Sample found = outputs();
            for (std::size_t at = 0; at < found.size(); ++at) {
                joined[at].insert(joined[at].end(), found[at].begin(), found[at].end());
            }
        }
        for (std::size_t at = 0; at < joined.size(); ++at) {
            write_file(output_path(at), joined[at].data(), joined[at].size());
        }
    }

    // A model that keeps state answers a sample as if it were the first only when it is loaded anew.
    void reload() {
        engine_.reset();
        engine_ = make_engine_(options_);
        engine_->load();
    }

    void sample_memory() {
        memory_.sample();
        heap_peak_ = std::max(heap_peak_, heap_bytes_now());
    }

    std::string output_path(std::size_t index) const {
        return options_.output_dir + "/output_" + std::to_string(index) + ".bin";
    }

    static Fields tensor_fields(const Tensor& tensor) {
        return {{"name", quoted(tensor.name)}, {"dtype", quoted(tensor.dtype)}, {"shape", shape_text(tensor.shape)}};
    }

    std::string outputs_text() const {
        std::size_t at = 0;
        return array_of(tensors_, [&](const Tensor& tensor) {
            Fields fields = tensor_fields(tensor);
            fields.emplace_back("file", quoted(output_path(at++)));
            return object_of(fields);
        });
    }

    static std::string operator_text(const Operator& op) {
        return object_of({{"name", quoted(op.name)},
                          {"type", quoted(op.type)},
                          {"delegated", boolean(op.delegated)},
                          {"node", number_or_null(op.node)}});
    }

    std::string result(std::int64_t peak_rss) {
        const auto input_text = [](const Tensor& tensor) { return object_of(tensor_fields(tensor)); };
        const std::string profile = engine_->profile_file();
        const Fields fields{
            {"runtime", quoted(engine_->runtime())},
            {"version", quoted(engine_->version())},
            {"inputs", array_of(engine_->inputs(), input_text)},
            {"outputs", outputs_text()},
            {"samples", std::to_string(samples_)},
            {"outputs_repeat", boolean(repeats_)},
            {"load_ns", number(load_ns_)},
            {"run_ns", array_of(run_ns_, number)},
            {"arena_bytes", number_or_null(arena_bytes_)},
            {"heap_peak_bytes", number(heap_peak_)},
            {"peak_rss_bytes", number(peak_rss)},
            {"emulated", boolean(memory_.emulated())},
            {"profile", profile.empty() ? "null" : quoted(profile)},
            {"operators", array_of(operators_, operator_text)},
        };
        return object_of(fields, ",\n ") + "\n";
    }

    const Options& options_;
    EngineFactory make_engine_;
    std::unique_ptr<Engine> engine_;
    std::vector<Bytes> files_;
    std::size_t samples_ = 1;
    std::vector<Tensor> tensors_;
    std::vector<Operator> operators_;
    std::vector<std::int64_t> run_ns_;
    std::int64_t load_ns_ = 0;
    std::int64_t heap_peak_ = 0;
    std::optional<std::int64_t> arena_bytes_;
    bool repeats_ = true;
    ResidentMemory memory_;
};

int report_failure(const Options& options, const std::string& stage, const std::string& message,
                   const std::string& operator_name) {
    std::fprintf(stderr, "%s: %s\n", stage.c_str(), message.c_str());
    const std::string error = object_of({{"stage", quoted(stage)},
                                         {"message", quoted(message)},
                                         {"operator", operator_name.empty() ? "null" : quoted(operator_name)}});
    std::ofstream file(options.result, std::ios::binary | std::ios::trunc);
    file << object_of({{"error", error}}) << "\n";
    return kFailed;
}

}  // namespace

std::size_t Tensor::bytes() const {
    return std::accumulate(shape.begin(), shape.end(), element_bytes,
                           [](std::size_t size, std::int64_t length) { return size * static_cast<std::size_t>(length); });
}

Failure::Failure(std::string stage, std::string message, std::string operator_name)
    : stage_(std::move(stage)), message_(std::move(message)), operator_name_(std::move(operator_name)) {}

std::string shape_text(const std::vector<std::int64_t>& shape) { return array_of(shape, number); }

void check_shape_count(const Options& options, std::size_t num_inputs) {
    if (options.shapes.empty() || options.shapes.size() == num_inputs) return;
    throw Failure("input", "expected a --shape for each of " + std::to_string(num_inputs) + " inputs, or none; received " +
                               std::to_string(options.shapes.size()));
}

std::vector<std::int64_t> resolved_shape(const Options& options, std::size_t input,
                                         const std::vector<std::int64_t>& own) {
    std::vector<std::int64_t> shape = own;
    if (options.shapes.empty()) {
        for (std::int64_t& size : shape) size = size < 0 ? 1 : size;
        return shape;
    }
    shape = options.shapes[input];
    bool fits = shape.size() == own.size();
    for (std::size_t at = 0; fits && at < shape.size(); ++at) fits = own[at] < 0 || own[at] == shape[at];
    if (fits) return shape;
    throw Failure("input", "input " + std::to_string(input) + ": expected a shape like " + shape_text(own) +
                               " (below 0: free); received " + shape_text(options.shapes[input]));
}

StderrCapture::StderrCapture(const std::string& path) : path_(path) {
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
    if (file < 0) throw Failure("output", "cannot write " + path + ": " + std::strerror(errno));
    std::fflush(stderr);
    original_ = dup(STDERR_FILENO);
    dup2(file, STDERR_FILENO);
    close(file);
}

StderrCapture::~StderrCapture() {
    std::fflush(stderr);
    dup2(original_, STDERR_FILENO);
    close(original_);
    const std::string said = text();
    std::fwrite(said.data(), 1, said.size(), stderr);
}

std::string StderrCapture::text() const {
    std::fflush(stderr);
    return read_text(path_);
}

std::string word_after(const std::string& text, const std::string& before, const std::string& ends) {
    const auto found = text.find(before);
    if (found == std::string::npos) return {};
    const auto begin = found + before.size();
    return text.substr(begin, text.find_first_of(ends, begin) - begin);
}

int run_main(int argc, char** argv, EngineFactory make_engine) {
    Options options;
    try {
        options = parse(argc, argv);
        std::remove(options.result.c_str());  // that of an earlier run must not be taken for this one's
        if (!std::ifstream(options.model)) throw Failure("load", "cannot open the model " + options.model);
        const std::string result = Run(options, make_engine).execute();
        write_file(options.result, result.data(), result.size());
        return 0;
    } catch (const UsageError& error) {
        std::fprintf(stderr, "%s\n%s", error.what(), kHelp);
        return kUsage;
    } catch (const Failure& failure) {
        return report_failure(options, failure.stage(), failure.what(), failure.operator_name());
    } catch (const std::bad_alloc&) {
        return report_failure(options, "memory", "out of memory", "");
    } catch (const std::exception& error) {
        return report_failure(options, "run", error.what(), "");
    }
}

}  // namespace edgekit
