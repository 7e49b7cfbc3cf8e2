// Runs a .pte file with ExecuTorch's Module: the XNNPACK backend, optimized and quantized kernels of the wheel.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/core/event_tracer.h>

#include <array>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "runner_common.h"
#include "session_engine.h"

#ifndef EDGEKIT_RUNTIME_VERSION
#define EDGEKIT_RUNTIME_VERSION ""  // the libraries do not tell their version
#endif

// The wheel has the library and not this header (extension/threadpool/threadpool.h). The class is only ever made by the
// library, so that its size does not matter here.
namespace executorch::extension::threadpool {
class ThreadPool final {
  public:
    std::size_t get_thread_count() const;
    bool _unsafe_reset_threadpool(std::uint32_t num_threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace edgekit {
namespace {

namespace et = executorch::runtime;
using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;

struct ElementType {
    ScalarType type;
    const char* dtype;
    std::size_t bytes;
};

constexpr std::array<ElementType, 12> kElementTypes{{
    {ScalarType::Byte, "uint8", 1},
    {ScalarType::Char, "int8", 1},
    {ScalarType::Short, "int16", 2},
    {ScalarType::Int, "int32", 4},
    {ScalarType::Long, "int64", 8},
    {ScalarType::Half, "float16", 2},
    {ScalarType::Float, "float32", 4},
    {ScalarType::Double, "float64", 8},
    {ScalarType::Bool, "bool", 1},
    {ScalarType::UInt16, "uint16", 2},
    {ScalarType::UInt32, "uint32", 4},
    {ScalarType::UInt64, "uint64", 8},
}};

const ElementType& element_type(ScalarType type, const std::string& name) {
    for (const ElementType& known : kElementTypes) {
        if (known.type == type) return known;
    }
    throw Failure("load", name + " has the scalar type " + std::to_string(static_cast<int>(type)) +
                              ", which this runner does not know");
}

void check(et::Error error, const char* stage, const std::string& what) {
    if (error != et::Error::Ok) throw Failure(stage, what + ": " + et::to_string(error));
}

template <typename Value>
Value& value_of(et::Result<Value>& result, const char* stage, const std::string& what) {
    check(result.error(), stage, what);
    return result.get();
}

// Notes which kernels run, in order. The runtime calls it between kernels; XNNPACK hands over its operations, with
// their times, when a partition is done.
class OperatorTracer final : public et::EventTracer {
  public:
    explicit OperatorTracer(std::vector<Operator>& found) : found_(found) {}

    void create_event_block(const char*) override { found_.clear(); }  // one is made for each execution

    et::EventTracerEntry start_profiling(const char* name, et::ChainID, et::DebugHandle) override {
        static const std::string prefix = "native_call_";
        const std::string text = name == nullptr ? "" : name;
        if (text.compare(0, prefix.size(), prefix) == 0) note(text.substr(prefix.size()), false);
        return {};
    }

    et::EventTracerEntry start_profiling_delegate(const char* name, et::DelegateDebugIntId index) override {
        note(name == nullptr ? std::to_string(index) : name, true);
        return {};
    }

    void log_profiling_delegate(const char* name, et::DelegateDebugIntId index, et_timestamp_t, et_timestamp_t,
                                const void*, std::size_t) override {
        note(name == nullptr ? std::to_string(index) : name, true);
    }

    void end_profiling(et::EventTracerEntry) override {}
    void end_profiling_delegate(et::EventTracerEntry, const void*, std::size_t) override {}
    void track_allocation(et::AllocatorID, std::size_t) override {}
    et::AllocatorID track_allocator(const char*) override { return 0; }
    et::Result<bool> log_evalue(const et::EValue&, et::LoggedEValueType) override { return false; }
    void set_delegation_intermediate_output_filter(et::EventTracerFilterBase*) override {}

    et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId,
                                                      const executorch::aten::Tensor&) override {
        return false;
    }
    et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId,
                                                      const et::ArrayRef<executorch::aten::Tensor>) override {
        return false;
    }
    et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId, const int&) override {
        return false;
    }
    et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId, const bool&) override {
        return false;
    }
    et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId, const double&) override {
        return false;
    }

  private:
    // "Convolution (NHWC, F32) IGEMM #1" is the second of its kind in its partition.
    void note(const std::string& name, bool delegated) {
        const auto instruction = static_cast<std::int64_t>(current_debug_handle());
        found_.push_back(
            {std::to_string(instruction) + ":" + name, name.substr(0, name.find(" #")), delegated, instruction});
    }

    std::vector<Operator>& found_;
};

class Session {
  public:
    // With a place for operators the program is traced: every execution fills it anew.
    Session(const Options& options, std::vector<Operator>* operators)
        : module_(options.model, Module::LoadMode::File,
                  operators == nullptr ? nullptr : std::make_unique<OperatorTracer>(*operators)) {
        check(module_.load(), "load", "loading the program");
        method_ = first_method();
        auto found = module_.method_meta(method_);
        const et::MethodMeta& meta = value_of(found, "load", "reading the method " + method_);
        check_shape_count(options, meta.num_inputs());
        list_inputs(options, meta);
        list_outputs(meta);
        arena_bytes_ = planned_bytes(meta);
        check(module_.load_method(method_), "load", "loading the method " + method_);
    }

    const std::vector<Tensor>& inputs() const { return inputs_; }
    const std::vector<Tensor>& outputs() const { return outputs_; }
    std::int64_t arena_bytes() const { return arena_bytes_; }

    void set_input(std::size_t index, const std::byte* data) {
        std::memcpy(data_[index].data(), data, data_[index].size());
    }

    // Inputs are given again at each run: the memory plan lets intermediate results overwrite them.
    void run() {
        auto found = module_.execute(method_, values_);
        results_ = std::move(value_of(found, "run", "executing the method " + method_));
    }

    Bytes output(std::size_t index) {
        const std::string name = outputs_[index].name;
        if (!results_.at(index).isTensor()) throw Failure("run", name + " is no tensor");
        const executorch::aten::Tensor& tensor = results_[index].toTensor();
        outputs_[index].shape.assign(tensor.sizes().begin(), tensor.sizes().end());
        return in_logical_order(tensor, outputs_[index]);
    }

  private:
    std::string first_method() {
        auto name = module_.program()->get_method_name(0);
        return value_of(name, "load", "finding the method");
    }

    void list_inputs(const Options& options, const et::MethodMeta& meta) {
        for (std::size_t at = 0; at < meta.num_inputs(); ++at) {
            const std::string name = "input_" + std::to_string(at);
            auto found = meta.input_tensor_meta(at);
            if (!found.ok()) throw Failure("load", name + " is no tensor, which this runner cannot feed");
            const ElementType& type = element_type(found->scalar_type(), name);
            Tensor tensor{name, type.dtype, {found->sizes().begin(), found->sizes().end()}, type.bytes};
            if (!options.shapes.empty()) tensor.shape = smaller_shape(options.shapes[at], tensor);
            data_.emplace_back(tensor.bytes());
            const std::vector<executorch::aten::SizesType> sizes(tensor.shape.begin(), tensor.shape.end());
            tensors_.push_back(executorch::extension::from_blob(data_.back().data(), sizes, type.type));
            values_.emplace_back(*tensors_.back());
            inputs_.push_back(std::move(tensor));
        }
    }

    // A program states the largest sizes that it takes, and not which of them are free.
    static std::vector<std::int64_t> smaller_shape(const std::vector<std::int64_t>& wanted, const Tensor& tensor) {
        bool fits = wanted.size() == tensor.shape.size();
        for (std::size_t at = 0; fits && at < wanted.size(); ++at) fits = wanted[at] <= tensor.shape[at];
        if (fits) return wanted;
        throw Failure("input", tensor.name + ": expected a shape up to " + shape_text(tensor.shape) + "; received " +
                                   shape_text(wanted));
    }

    void list_outputs(const et::MethodMeta& meta) {
        for (std::size_t at = 0; at < meta.num_outputs(); ++at) {
            const std::string name = "output_" + std::to_string(at);
            auto found = meta.output_tensor_meta(at);
            if (!found.ok()) throw Failure("load", name + " is no tensor, which this runner cannot read");
            const ElementType& type = element_type(found->scalar_type(), name);
            outputs_.push_back({name, type.dtype, {found->sizes().begin(), found->sizes().end()}, type.bytes});
        }
    }

    static std::int64_t planned_bytes(const et::MethodMeta& meta) {
        std::int64_t total = 0;
        for (std::size_t at = 0; at < meta.num_memory_planned_buffers(); ++at) {
            auto size = meta.memory_planned_buffer_size(at);
            total += value_of(size, "load", "reading the memory plan");
        }
        return total;
    }

    // A tensor's memory may be in another order than its sizes (channels last).
    static Bytes in_logical_order(const executorch::aten::Tensor& tensor, const Tensor& described) {
        Bytes data(described.bytes());
        const auto* source = static_cast<const std::byte*>(tensor.const_data_ptr());
        const std::size_t rank = described.shape.size();
        std::vector<std::int64_t> place(rank, 0);
        for (std::size_t offset = 0; offset < data.size(); offset += described.element_bytes) {
            std::int64_t element = 0;
            for (std::size_t at = 0; at < rank; ++at) element += place[at] * tensor.strides()[at];
            std::memcpy(data.data() + offset, source + element * static_cast<std::int64_t>(described.element_bytes),
                        described.element_bytes);
            for (std::size_t at = rank; at-- > 0;) {
                if (++place[at] < described.shape[at]) break;
                place[at] = 0;
            }
        }
        return data;
    }

    Module module_;
    std::string method_;
    std::vector<Bytes> data_;
    std::vector<TensorPtr> tensors_;
    std::vector<et::EValue> values_;
    std::vector<et::EValue> results_;
    std::vector<Tensor> inputs_;
    std::vector<Tensor> outputs_;
    std::int64_t arena_bytes_ = 0;
};

class ExecuTorchEngine : public LoggedSessionEngine<Session> {
  public:
    using LoggedSessionEngine::LoggedSessionEngine;

    std::string runtime() const override { return "ExecuTorch"; }
    std::string version() const override { return EDGEKIT_RUNTIME_VERSION; }
    std::optional<std::int64_t> arena_bytes() const override { return session().arena_bytes(); }

    // A session of its own: the counted one runs without a tracer, as in an application.
    std::vector<Operator> operators() override {
        std::vector<Operator> found;
        auto traced = with_log([&] { return std::make_unique<Session>(options(), &found); });
        feed(*traced);
        traced->run();
        return found;
    }

  protected:
    std::unique_ptr<Session> open() override {
        set_threads();
        return with_log([this] { return std::make_unique<Session>(options(), nullptr); });
    }

    // Error codes do not name the operator or the backend that is missing; the lines of the log that begin with "E" do.
    Explanation explain(const std::string& log) const override {
        std::istringstream lines(log);
        std::string found;
        for (std::string line; std::getline(lines, line);) {
            if (line.compare(0, 2, "E ") == 0) found += line + "\n";
        }
        return {found, word_after(found, "kernel '", "'")};
    }

  private:
    // One pool serves the process, by default with a thread for each core. A loaded program keeps a pointer to it, so
    // that it is resized before anything is loaded.
    void set_threads() const {
        auto* pool = executorch::extension::threadpool::get_threadpool();
        const auto wanted = static_cast<std::uint32_t>(options().threads);
        if (pool->get_thread_count() == wanted) return;
        if (!pool->_unsafe_reset_threadpool(wanted)) throw Failure("load", "cannot set the number of threads");
    }
};

}  // namespace
}  // namespace edgekit

int main(int argc, char** argv) {
    return edgekit::run_main(argc, argv, [](const edgekit::Options& options) -> std::unique_ptr<edgekit::Engine> {
        return std::make_unique<edgekit::ExecuTorchEngine>(options);
    });
}
