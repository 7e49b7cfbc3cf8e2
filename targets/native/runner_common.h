// What every runner shares: the command line, the order of events, memory figures and the JSON result.
//
// A runner implements Engine for one runtime and calls run_main. See README.md for the command line and the result.
#ifndef EDGEKIT_RUNNER_COMMON_H
#define EDGEKIT_RUNNER_COMMON_H

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace edgekit {

using Bytes = std::vector<std::byte>;

// An input or output as the artifact holds it; quantized tensors are plain integers here.
struct Tensor {
    std::string name;
    std::string dtype;  // numpy's name
    std::vector<std::int64_t> shape;
    std::size_t element_bytes = 0;

    std::size_t bytes() const;
};

// One operator of the runtime, in execution order.
struct Operator {
    std::string name;
    std::string type;
    bool delegated = false;
    std::optional<std::int64_t> node;  // position in the artifact's graph, or within its delegate's partition
};

// A failure that the result reports: the stage, the runtime's own words, and the operator where it is known.
class Failure : public std::exception {
  public:
    Failure(std::string stage, std::string message, std::string operator_name = {});
    const char* what() const noexcept override { return message_.c_str(); }
    const std::string& stage() const { return stage_; }
    const std::string& operator_name() const { return operator_name_; }

  private:
    std::string stage_;
    std::string message_;
    std::string operator_name_;
};

struct Options {
    std::string model;
    std::vector<std::string> inputs;
    std::vector<std::vector<std::int64_t>> shapes;  // of the inputs, where the artifact leaves sizes free
    std::string output_dir;
    std::string result;
    int warmup = 1;
    int runs = 1;
    int threads = 1;
    bool operators = false;      // list the runtime's operators in one more, uncounted inference
    bool profile_nodes = false;  // the counted inference itself runs with the runtime's profiler on
};

// One runtime with one loaded artifact. Every function throws Failure.
class Engine {
  public:
    virtual ~Engine() = default;
    virtual std::string runtime() const = 0;
    virtual std::string version() const = 0;
    virtual void load() = 0;
    virtual const std::vector<Tensor>& inputs() const = 0;
    // Shapes of outputs may be known only after a run.
    virtual const std::vector<Tensor>& outputs() const = 0;
    virtual void set_input(std::size_t index, const std::byte* data) = 0;
    virtual void run() = 0;
    virtual Bytes output(std::size_t index) = 0;
    // Bytes that the runtime plans for intermediate results, where it tells.
    virtual std::optional<std::int64_t> arena_bytes() const { return std::nullopt; }
    // Runs once more under the runtime's profiler, with the inputs of the last run.
    virtual std::vector<Operator> operators() = 0;
    // A profile that the runtime wrote in a format of its own, for the reader of the result; empty: none.
    virtual std::string profile_file() { return {}; }
};

using EngineFactory = std::unique_ptr<Engine> (*)(const Options&);

// Parses the command line, runs, writes the result. Returns the exit status: 0, 2 (usage) or 4 (failure, reported).
int run_main(int argc, char** argv, EngineFactory make_engine);

// An input's shape: the one of the command line where it gives any, else the artifact's with its free sizes (below 0)
// as 1. Throws Failure where the two do not fit.
std::vector<std::int64_t> resolved_shape(const Options& options, std::size_t input,
                                         const std::vector<std::int64_t>& own);
void check_shape_count(const Options& options, std::size_t num_inputs);

std::string shape_text(const std::vector<std::int64_t>& shape);

// Everything that the process writes to standard error while this lives also ends in text(): runtimes say there what
// their status codes do not.
class StderrCapture {
  public:
    explicit StderrCapture(const std::string& path);
    ~StderrCapture();
    StderrCapture(const StderrCapture&) = delete;
    StderrCapture& operator=(const StderrCapture&) = delete;
    std::string text() const;

  private:
    int original_ = -1;
    std::string path_;
};

// The word that follows `before` in `text`, up to one of `ends`; empty where there is none.
std::string word_after(const std::string& text, const std::string& before, const std::string& ends);

}  // namespace edgekit

#endif
