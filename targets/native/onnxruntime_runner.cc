// Runs a .onnx file with ONNX Runtime's CPU provider through its C API, with the options of edgekit's own session on the
// host: fixed threads, sequential, deterministic kernels.

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "onnxruntime_c_api_subset.h"
#include "runner_common.h"
#include "session_engine.h"

namespace edgekit {
namespace {

struct ElementType {
    int code;  // ONNXTensorElementDataType
    const char* dtype;
    std::size_t bytes;
};

constexpr std::array<ElementType, 14> kElementTypes{{
    {1, "float32", 4},
    {2, "uint8", 1},
    {3, "int8", 1},
    {4, "uint16", 2},
    {5, "int16", 2},
    {6, "int32", 4},
    {7, "int64", 8},
    {9, "bool", 1},
    {10, "float16", 2},
    {11, "float64", 8},
    {12, "uint32", 4},
    {13, "uint64", 8},
    {14, "complex64", 8},
    {15, "complex128", 16},
}};

const OrtApi& api() {
    static const OrtApi* const found = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (found == nullptr) {
        throw Failure("load", std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
                                  " is too old: it lacks version " + std::to_string(ORT_API_VERSION) + " of its C API");
    }
    return *found;
}

// What ONNX Runtime says when it knows no such operator, or has no kernel for it.
std::string operator_in(const std::string& message) {
    for (const char* before : {"No Op registered for ", "Could not find an implementation for ", "Fatal error: ",
                               "of operator ("}) {
        const std::string name = word_after(message, before, "() \n");
        if (!name.empty()) return name;
    }
    return {};
}

void check(OrtStatus* status, const char* stage) {
    if (status == nullptr) return;
    const std::string message = api().GetErrorMessage(status);
    api().ReleaseStatus(status);
    throw Failure(stage, message, operator_in(message));
}

// A handle that ONNX Runtime frees by a function of its table.
template <typename Handle, void (*OrtApi::*release)(Handle*)>
class Owned {
  public:
    Owned() = default;
    explicit Owned(Handle* handle) : handle_(handle) {}
    ~Owned() {
        if (handle_ != nullptr) (api().*release)(handle_);
    }
    Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    Owned& operator=(Owned&&) = delete;
    Handle* get() const { return handle_; }
    Handle** out() { return &handle_; }

  private:
    Handle* handle_ = nullptr;
};

using Environment = Owned<OrtEnv, &OrtApi::ReleaseEnv>;
using SessionOptions = Owned<OrtSessionOptions, &OrtApi::ReleaseSessionOptions>;
using RunOptions = Owned<OrtRunOptions, &OrtApi::ReleaseRunOptions>;
using SessionHandle = Owned<OrtSession, &OrtApi::ReleaseSession>;
using MemoryInfo = Owned<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo>;
using Binding = Owned<OrtIoBinding, &OrtApi::ReleaseIoBinding>;
using Value = Owned<OrtValue, &OrtApi::ReleaseValue>;
using TypeInfo = Owned<OrtTypeInfo, &OrtApi::ReleaseTypeInfo>;
using ShapeInfo = Owned<OrtTensorTypeAndShapeInfo, &OrtApi::ReleaseTensorTypeAndShapeInfo>;
using Allocator = Owned<OrtAllocator, &OrtApi::ReleaseAllocator>;
using KeyValues = Owned<OrtKeyValuePairs, &OrtApi::ReleaseKeyValuePairs>;

OrtAllocator* default_allocator() {
    OrtAllocator* allocator = nullptr;  // the library's own: not to be freed
    check(api().GetAllocatorWithDefaultOptions(&allocator), "load");
    return allocator;
}

std::string take_text(char* text) {
    const std::string copy = text;
    check(api().AllocatorFree(default_allocator(), text), "run");
    return copy;
}

int element_code(const OrtTensorTypeAndShapeInfo* info) {
    int code = 0;
    check(api().GetTensorElementType(info, &code), "load");
    return code;
}

Tensor describe(const std::string& name, const OrtTensorTypeAndShapeInfo* info) {
    if (info == nullptr) throw Failure("load", "'" + name + "' is no tensor; sequences and maps cannot be fed or read");
    const int code = element_code(info);
    if (code == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING) {
        throw Failure("load", "tensor '" + name + "' holds strings, which this runner cannot feed");
    }
    Tensor found;
    found.name = name;
    for (const ElementType& known : kElementTypes) {
        if (known.code != code) continue;
        found.dtype = known.dtype;
        found.element_bytes = known.bytes;
    }
    if (found.dtype.empty()) {
        throw Failure("load", "tensor '" + name + "' has the element type " + std::to_string(code) +
                                  ", which this runner does not know");
    }
    std::size_t rank = 0;
    check(api().GetDimensionsCount(info, &rank), "load");
    found.shape.resize(rank);
    check(api().GetDimensions(info, found.shape.data(), rank), "load");
    return found;
}

struct Input {
    Bytes data;
    Value value;  // a view of `data`
};

// A loaded model, bound to its inputs, as an application runs it.
class Session {
  public:
    Session(const Options& options, const std::string& profile_prefix) {
        check(api().CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edgekit", environment_.out()), "load");
        check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, memory_.out()), "load");
        check(api().CreateRunOptions(run_options_.out()), "load");
        create_session(options, profile_prefix);
        check(api().CreateIoBinding(session_.get(), binding_.out()), "load");
        list_inputs(options);
        list_outputs();
    }

    const std::vector<Tensor>& inputs() const { return inputs_; }
    const std::vector<Tensor>& outputs() const { return outputs_; }

    void set_input(std::size_t index, const std::byte* data) {
        std::memcpy(values_[index].data.data(), data, inputs_[index].bytes());
    }

    void run() { check(api().RunWithBinding(session_.get(), run_options_.get(), binding_.get()), "run"); }

    Bytes output(std::size_t index) {
        OrtValue** bound = nullptr;
        std::size_t count = 0;
        check(api().GetBoundOutputValues(binding_.get(), default_allocator(), &bound, &count), "run");
        std::vector<Value> values;
        for (std::size_t at = 0; at < count; ++at) values.emplace_back(bound[at]);
        check(api().AllocatorFree(default_allocator(), bound), "run");
        ShapeInfo info;
        check(api().GetTensorTypeAndShape(values.at(index).get(), info.out()), "run");
        outputs_[index].shape = describe(outputs_[index].name, info.get()).shape;
        void* address = nullptr;
        check(api().GetTensorMutableData(values[index].get(), &address), "run");
        Bytes data(outputs_[index].bytes());
        if (!data.empty()) std::memcpy(data.data(), address, data.size());
        return data;
    }

    // The most that the arena held at one time, weights that were packed anew included.
    std::optional<std::int64_t> arena_bytes() const {
        Allocator arena;
        check(api().CreateAllocator(session_.get(), memory_.get(), arena.out()), "run");
        KeyValues statistics;
        check(api().AllocatorGetStats(arena.get(), statistics.out()), "run");
        const char* most = api().GetKeyValue(statistics.get(), "MaxInUse");
        if (most == nullptr) return std::nullopt;
        return std::stoll(most);
    }

    std::string end_profiling() {
        char* path = nullptr;
        check(api().SessionEndProfiling(session_.get(), default_allocator(), &path), "profile");
        return take_text(path);
    }

  private:
    void create_session(const Options& options, const std::string& profile_prefix) {
        SessionOptions made;
        check(api().CreateSessionOptions(made.out()), "load");
        check(api().SetIntraOpNumThreads(made.get(), options.threads), "load");
        check(api().SetInterOpNumThreads(made.get(), 1), "load");
        check(api().SetSessionExecutionMode(made.get(), ORT_SEQUENTIAL), "load");
        check(api().SetDeterministicCompute(made.get(), true), "load");
        check(api().SetSessionLogSeverityLevel(made.get(), ORT_LOGGING_LEVEL_ERROR), "load");
        if (!profile_prefix.empty()) check(api().EnableProfiling(made.get(), profile_prefix.c_str()), "load");
        check(api().CreateSession(environment_.get(), options.model.c_str(), made.get(), session_.out()), "load");
    }

    void list_inputs(const Options& options) {
        std::size_t count = 0;
        check(api().SessionGetInputCount(session_.get(), &count), "load");
        check_shape_count(options, count);
        for (std::size_t at = 0; at < count; ++at) {
            char* name = nullptr;
            check(api().SessionGetInputName(session_.get(), at, default_allocator(), &name), "load");
            TypeInfo type;
            check(api().SessionGetInputTypeInfo(session_.get(), at, type.out()), "load");
            const OrtTensorTypeAndShapeInfo* info = tensor_info(type);
            inputs_.push_back(describe(take_text(name), info));
            inputs_.back().shape = resolved_shape(options, at, inputs_.back().shape);
            bind_input(inputs_.back(), element_code(info));
        }
    }

    void bind_input(const Tensor& tensor, int code) {
        Input& input = values_.emplace_back();
        input.data.resize(tensor.bytes());
        check(api().CreateTensorWithDataAsOrtValue(memory_.get(), input.data.data(), input.data.size(),
                                                   tensor.shape.data(), tensor.shape.size(), code, input.value.out()),
              "load");
        check(api().BindInput(binding_.get(), tensor.name.c_str(), input.value.get()), "load");
    }

    void list_outputs() {
        std::size_t count = 0;
        check(api().SessionGetOutputCount(session_.get(), &count), "load");
        for (std::size_t at = 0; at < count; ++at) {
            char* name = nullptr;
            check(api().SessionGetOutputName(session_.get(), at, default_allocator(), &name), "load");
            TypeInfo type;
            check(api().SessionGetOutputTypeInfo(session_.get(), at, type.out()), "load");
            outputs_.push_back(describe(take_text(name), tensor_info(type)));
            check(api().BindOutputToDevice(binding_.get(), outputs_.back().name.c_str(), memory_.get()), "load");
        }
    }

    static const OrtTensorTypeAndShapeInfo* tensor_info(const TypeInfo& type) {
        const OrtTensorTypeAndShapeInfo* info = nullptr;  // lives as long as the type
        check(api().CastTypeInfoToTensorInfo(type.get(), &info), "load");
        return info;
    }

    // Destroyed in the opposite order: values and binding before the session, the environment last.
    Environment environment_;
    MemoryInfo memory_;
    RunOptions run_options_;
    SessionHandle session_;
    Binding binding_;
    std::vector<Input> values_;
    std::vector<Tensor> inputs_;
    std::vector<Tensor> outputs_;
};

class OnnxRuntimeEngine : public SessionEngine<Session> {
  public:
    using SessionEngine::SessionEngine;

    std::string runtime() const override { return "ONNX Runtime"; }
    std::string version() const override { return OrtGetApiBase()->GetVersionString(); }
    std::optional<std::int64_t> arena_bytes() const override { return session().arena_bytes(); }

    // The nodes are in the profile, which ONNX Runtime writes as JSON: whoever reads the result reads that too.
    std::vector<Operator> operators() override {
        if (options().profile_nodes) return {};
        Session profiled(options(), prefix());
        feed(profiled);
        profiled.run();
        profile_ = profiled.end_profiling();
        return {};
    }

    std::string profile_file() override {
        if (profile_.empty() && options().profile_nodes) profile_ = session().end_profiling();
        return profile_;
    }

  protected:
    std::unique_ptr<Session> open() override {
        return std::make_unique<Session>(options(), options().profile_nodes ? prefix() : "");
    }

  private:
    std::string prefix() const { return options().output_dir + "/profile"; }

    std::string profile_;
};

}  // namespace
}  // namespace edgekit

int main(int argc, char** argv) {
    // Since 1.29 the official libraries for Linux send what they load to Microsoft unless told not to; the thread and the
    // database that this takes also made counts differ from run to run.
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    return edgekit::run_main(argc, argv, [](const edgekit::Options& options) -> std::unique_ptr<edgekit::Engine> {
        return std::make_unique<edgekit::OnnxRuntimeEngine>(options);
    });
}
