// Runs a .tflite file with LiteRT's compiled-model API on the CPU: LiteRT's own kernels and its XNNPACK delegate, as an
// application gets them by default.

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "litert_c_api.h"
#include "runner_common.h"
#include "session_engine.h"

#ifndef EDGEKIT_RUNTIME_VERSION
#define EDGEKIT_RUNTIME_VERSION ""  // the library does not tell its version
#endif

namespace edgekit {
namespace {

constexpr std::size_t kSignature = 0;

struct ElementType {
    int code;  // LiteRtElementType
    const char* dtype;
    std::size_t bytes;
};

constexpr std::array<ElementType, 14> kElementTypes{{
    {1, "float32", 4},
    {2, "int32", 4},
    {3, "uint8", 1},
    {4, "int64", 8},
    {6, "bool", 1},
    {7, "int16", 2},
    {8, "complex64", 8},
    {9, "int8", 1},
    {10, "float16", 2},
    {11, "float64", 8},
    {12, "complex128", 16},
    {13, "uint64", 8},
    {16, "uint32", 4},
    {17, "uint16", 2},
}};
constexpr int kStringType = 5;

template <typename Handle, void (*destroy)(Handle)>
class Owned {
  public:
    Owned() = default;
    ~Owned() {
        if (handle_ != nullptr) destroy(handle_);
    }
    Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    Owned& operator=(Owned&&) = delete;
    Handle get() const { return handle_; }
    Handle* out() { return &handle_; }

  private:
    Handle handle_ = nullptr;
};

using Environment = Owned<LiteRtEnvironment, LiteRtDestroyEnvironment>;
using Model = Owned<LiteRtModel, LiteRtDestroyModel>;
using CompileOptions = Owned<LiteRtOptions, LiteRtDestroyOptions>;
using Compiled = Owned<LiteRtCompiledModel, LiteRtDestroyCompiledModel>;
using Buffer = Owned<LiteRtTensorBuffer, LiteRtDestroyTensorBuffer>;

void check(LiteRtStatus status, const char* stage, const char* call) {
    if (status == 0) return;
    throw Failure(stage, std::string(call) + " returned status " + std::to_string(status));
}
#define EDGEKIT_CHECK(stage, call, ...) check(call(__VA_ARGS__), stage, #call)

void add_options(LiteRtOptions options, const char* name, const std::string& text) {
    auto* payload = new char[text.size() + 1];
    std::memcpy(payload, text.c_str(), text.size() + 1);
    LiteRtOpaqueOptions opaque = nullptr;
    const auto destroy = [](void* data) { delete[] static_cast<char*>(data); };
    EDGEKIT_CHECK("load", LiteRtCreateOpaqueOptions, name, payload, destroy, &opaque);
    EDGEKIT_CHECK("load", LiteRtAddOpaqueOptions, options, opaque);
}

// An input or output: what the result says of it, its place in the signature, and its buffer.
struct Port {
    std::size_t place = 0;
    LiteRtRankedTensorType type{};
    Buffer buffer;
};

// A model with its buffers, prepared for the CPU. Ports are in the order of the graph, which is the artifact's order;
// a signature may list them in another one.
class Session {
  public:
    Session(const Options& options, bool profile) {
        create_environment();
        EDGEKIT_CHECK("load", LiteRtCreateModelFromFile, environment_.get(), options.model.c_str(), model_.out());
        compile(options.threads, profile);
        LiteRtSignature signature = nullptr;
        LiteRtSubgraph graph = nullptr;
        EDGEKIT_CHECK("load", LiteRtGetModelSignature, model_.get(), kSignature, &signature);
        EDGEKIT_CHECK("load", LiteRtGetSignatureSubgraph, signature, &graph);
        list_inputs(options, signature, graph);
        list_outputs(signature, graph);
        make_buffers();
        if (profile) EDGEKIT_CHECK("profile", LiteRtCompiledModelGetProfiler, compiled_.get(), &profiler_);
    }

    const std::vector<Tensor>& inputs() const { return inputs_; }
    const std::vector<Tensor>& outputs() const { return outputs_; }

    void set_input(std::size_t index, const std::byte* data) {
        void* address = nullptr;
        const LiteRtTensorBuffer buffer = input_ports_[index].buffer.get();
        EDGEKIT_CHECK("run", LiteRtLockTensorBuffer, buffer, &address, kLiteRtLockWrite);
        std::memcpy(address, data, inputs_[index].bytes());
        EDGEKIT_CHECK("run", LiteRtUnlockTensorBuffer, buffer);
    }

    void run() {
        EDGEKIT_CHECK("run", LiteRtRunCompiledModel, compiled_.get(), kSignature, input_handles_.size(),
                      input_handles_.data(), output_handles_.size(), output_handles_.data());
    }

    Bytes output(std::size_t index) {
        Bytes data(outputs_[index].bytes());
        void* address = nullptr;
        const LiteRtTensorBuffer buffer = output_ports_[index].buffer.get();
        EDGEKIT_CHECK("run", LiteRtLockTensorBuffer, buffer, &address, kLiteRtLockRead);
        std::memcpy(data.data(), address, data.size());
        EDGEKIT_CHECK("run", LiteRtUnlockTensorBuffer, buffer);
        return data;
    }

    std::vector<LiteRtProfilerEvent> profiled_run() {
        EDGEKIT_CHECK("profile", LiteRtStartProfiler, profiler_);
        run();
        EDGEKIT_CHECK("profile", LiteRtStopProfiler, profiler_);
        int count = 0;
        EDGEKIT_CHECK("profile", LiteRtGetNumProfilerEvents, profiler_, &count);
        std::vector<LiteRtProfilerEvent> events(static_cast<std::size_t>(count));
        EDGEKIT_CHECK("profile", LiteRtGetProfilerEvents, profiler_, count, events.data());
        return events;
    }

  private:
    // By default LiteRT loads every accelerator library that it finds. The WebGPU one of the aarch64 wheel stops a
    // process on a core without atomics of Armv8.1 (A53, A57, A72, A73).
    void create_environment() {
        const LiteRtEnvironmentOption options[] = {
            {kLiteRtTagAutoRegisterAccelerators, {kLiteRtAnyInt, kLiteRtHwAcceleratorCpu}},
            {kLiteRtTagMinLoggerSeverity, {kLiteRtAnyInt, kLiteRtSeverityWarning}},
        };
        EDGEKIT_CHECK("load", LiteRtCreateEnvironment, 2, options, environment_.out());
    }

    void compile(int threads, bool profile) {
        CompileOptions options;
        EDGEKIT_CHECK("load", LiteRtCreateOptions, options.out());
        EDGEKIT_CHECK("load", LiteRtSetOptionsHardwareAccelerators, options.get(), kLiteRtHwAcceleratorCpu);
        if (profile) add_options(options.get(), "runtime_options_string", "enable_profiling = true\n");
        add_options(options.get(), "xnnpack", "num_threads = " + std::to_string(threads) + "\n");
        EDGEKIT_CHECK("load", LiteRtCreateCompiledModel, environment_.get(), model_.get(), options.get(),
                      compiled_.out());
    }

    template <typename GetTensor>
    static std::vector<LiteRtTensor> tensors(std::size_t count, GetTensor get, const char* call) {
        std::vector<LiteRtTensor> found(count);
        for (std::size_t at = 0; at < count; ++at) check(get(at, &found[at]), "load", call);
        return found;
    }

    static std::size_t place_of(LiteRtTensor tensor, const std::vector<LiteRtTensor>& signature) {
        for (std::size_t at = 0; at < signature.size(); ++at) {
            if (signature[at] == tensor) return at;
        }
        throw Failure("load", "the model's signature does not name every input and output of its graph");
    }

    void list_inputs(const Options& options, LiteRtSignature signature, LiteRtSubgraph graph) {
        std::size_t count = 0;
        EDGEKIT_CHECK("load", LiteRtGetNumSignatureInputs, signature, &count);
        const auto named = tensors(
            count, [&](auto at, auto* out) { return LiteRtGetSignatureInputTensorByIndex(signature, at, out); },
            "LiteRtGetSignatureInputTensorByIndex");
        EDGEKIT_CHECK("load", LiteRtGetNumSubgraphInputs, graph, &count);
        const auto own = tensors(
            count, [&](auto at, auto* out) { return LiteRtGetSubgraphInput(graph, at, out); },
            "LiteRtGetSubgraphInput");
        check_shape_count(options, own.size());
        for (const LiteRtTensor tensor : own) {
            Port port = port_of(tensor, place_of(tensor, named));
            fix_shape(options, port);
            inputs_.push_back(describe(tensor, port.type));
            input_ports_.push_back(std::move(port));
        }
    }

    void list_outputs(LiteRtSignature signature, LiteRtSubgraph graph) {
        std::size_t count = 0;
        EDGEKIT_CHECK("load", LiteRtGetNumSignatureOutputs, signature, &count);
        const auto named = tensors(
            count, [&](auto at, auto* out) { return LiteRtGetSignatureOutputTensorByIndex(signature, at, out); },
            "LiteRtGetSignatureOutputTensorByIndex");
        std::vector<LiteRtLayout> layouts(count);
        // Allocates tensors too, which otherwise waits for the first run: it belongs to loading, as does what fails then.
        EDGEKIT_CHECK("load", LiteRtGetCompiledModelOutputTensorLayouts, compiled_.get(), kSignature, count,
                      layouts.data(), true);
        EDGEKIT_CHECK("load", LiteRtGetNumSubgraphOutputs, graph, &count);
        const auto own = tensors(
            count, [&](auto at, auto* out) { return LiteRtGetSubgraphOutput(graph, at, out); },
            "LiteRtGetSubgraphOutput");
        for (const LiteRtTensor tensor : own) {
            Port port = port_of(tensor, place_of(tensor, named));
            port.type.layout = layouts[port.place];
            outputs_.push_back(describe(tensor, port.type));
            output_ports_.push_back(std::move(port));
        }
    }

    static Port port_of(LiteRtTensor tensor, std::size_t place) {
        Port port;
        port.place = place;
        EDGEKIT_CHECK("load", LiteRtGetRankedTensorType, tensor, &port.type);
        return port;
    }

    // Gives the free sizes of an input the wanted ones.
    void fix_shape(const Options& options, Port& port) {
        LiteRtLayout& layout = port.type.layout;
        const std::vector<std::int64_t> own(layout.dimensions, layout.dimensions + layout.rank);
        const std::vector<std::int64_t> wanted = resolved_shape(options, input_ports_.size(), own);
        if (wanted == own) return;
        std::copy(wanted.begin(), wanted.end(), layout.dimensions);
        EDGEKIT_CHECK("load", LiteRtCompiledModelResizeInputTensor, compiled_.get(), kSignature, port.place,
                      layout.dimensions, layout.rank);
    }

    static Tensor describe(LiteRtTensor tensor, const LiteRtRankedTensorType& type) {
        const char* name = "";
        EDGEKIT_CHECK("load", LiteRtGetTensorName, tensor, &name);
        if (type.element_type == kStringType) {
            throw Failure("load", std::string("tensor '") + name + "' holds strings, which this runner cannot feed");
        }
        Tensor found;
        found.name = name;
        for (const ElementType& known : kElementTypes) {
            if (known.code != type.element_type) continue;
            found.dtype = known.dtype;
            found.element_bytes = known.bytes;
        }
        if (found.dtype.empty()) {
            throw Failure("load", "tensor '" + found.name + "' has the element type " +
                                      std::to_string(type.element_type) + ", which this runner does not know");
        }
        found.shape.assign(type.layout.dimensions, type.layout.dimensions + type.layout.rank);
        return found;
    }

    void make_buffers() {
        input_handles_.resize(input_ports_.size());
        for (Port& port : input_ports_) {
            LiteRtTensorBufferRequirements needs = nullptr;
            EDGEKIT_CHECK("load", LiteRtGetCompiledModelInputBufferRequirements, compiled_.get(), kSignature,
                          port.place, &needs);
            input_handles_[port.place] = make_buffer(port, needs);
        }
        output_handles_.resize(output_ports_.size());
        for (Port& port : output_ports_) {
            LiteRtTensorBufferRequirements needs = nullptr;
            EDGEKIT_CHECK("load", LiteRtGetCompiledModelOutputBufferRequirements, compiled_.get(), kSignature,
                          port.place, &needs);
            output_handles_[port.place] = make_buffer(port, needs);
        }
    }

    LiteRtTensorBuffer make_buffer(Port& port, LiteRtTensorBufferRequirements needs) {
        EDGEKIT_CHECK("load", LiteRtCreateManagedTensorBufferFromRequirements, environment_.get(), &port.type, needs,
                      port.buffer.out());
        return port.buffer.get();
    }

    // Destroyed in the opposite order: buffers, then the compiled model, the model, the environment.
    Environment environment_;
    Model model_;
    Compiled compiled_;
    std::vector<Port> input_ports_;
    std::vector<Port> output_ports_;
    std::vector<LiteRtTensorBuffer> input_handles_;
    std::vector<LiteRtTensorBuffer> output_handles_;
    std::vector<Tensor> inputs_;
    std::vector<Tensor> outputs_;
    LiteRtProfiler profiler_ = nullptr;
};

class LiteRtEngine : public LoggedSessionEngine<Session> {
  public:
    using LoggedSessionEngine::LoggedSessionEngine;

    std::string runtime() const override { return "LiteRT"; }
    std::string version() const override { return EDGEKIT_RUNTIME_VERSION; }

    // A session of its own: the counted one is loaded without a profiler, as an application loads it.
    std::vector<Operator> operators() override {
        auto profiled = with_log([this] { return std::make_unique<Session>(options(), true); });
        feed(*profiled);
        std::vector<Operator> found;
        for (const LiteRtProfilerEvent& event : profiled->profiled_run()) {
            const bool delegated = event.event_type == kLiteRtEventDelegatedOperator;
            if (!delegated && event.event_type != kLiteRtEventOperator) continue;
            const std::string tag = event.tag == nullptr ? "" : event.tag;
            found.push_back({tag, tag, delegated, static_cast<std::int64_t>(event.index)});
        }
        return found;
    }

  protected:
    std::unique_ptr<Session> open() override {
        return with_log([this] { return std::make_unique<Session>(options(), false); });
    }

    Explanation explain(const std::string& log) const override { return {log, operator_in(log)}; }

  private:
    static std::string operator_in(const std::string& log) {
        for (const char* before : {"unresolved custom op: ", "Didn't find op for builtin opcode '"}) {
            const std::string name = word_after(log, before, ".'\n ");
            if (!name.empty()) return name;
        }
        // "Node number 3 (CONV_2D) failed to prepare."
        const auto at = log.find("Node number ");
        return at == std::string::npos ? "" : word_after(log.substr(at), "(", ")");
    }
};

}  // namespace
}  // namespace edgekit

int main(int argc, char** argv) {
    return edgekit::run_main(argc, argv, [](const edgekit::Options& options) -> std::unique_ptr<edgekit::Engine> {
        return std::make_unique<edgekit::LiteRtEngine>(options);
    });
}
