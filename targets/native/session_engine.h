// What the engines of all runtimes share: one session, the inputs of its last run, and what the runtime says on standard
// error when it fails.
//
// A Session of a runtime has inputs(), outputs(), set_input(index, data), run() and output(index), as Engine has them.
#ifndef EDGEKIT_SESSION_ENGINE_H
#define EDGEKIT_SESSION_ENGINE_H

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "runner_common.h"

namespace edgekit {

template <typename Session>
class SessionEngine : public Engine {
  public:
    explicit SessionEngine(const Options& options) : options_(options) {}

    const std::vector<Tensor>& inputs() const override { return session_->inputs(); }
    const std::vector<Tensor>& outputs() const override { return session_->outputs(); }

    void load() override {
        session_ = open();
        last_inputs_.resize(session_->inputs().size());
    }

    void set_input(std::size_t index, const std::byte* data) override {
        last_inputs_[index].assign(data, data + session_->inputs()[index].bytes());
        session_->set_input(index, data);
    }

    void run() override { session_->run(); }
    Bytes output(std::size_t index) override { return session_->output(index); }

  protected:
    // Opens the session whose inference is counted.
    virtual std::unique_ptr<Session> open() = 0;

    const Options& options() const { return options_; }
    Session& session() const { return *session_; }

    // Gives another session the inputs of the last run.
    void feed(Session& other) const {
        for (std::size_t at = 0; at < last_inputs_.size(); ++at) other.set_input(at, last_inputs_[at].data());
    }

  private:
    const Options& options_;
    std::unique_ptr<Session> session_;
    std::vector<Bytes> last_inputs_;
};

// What a runtime's log says of a failure, and the operator where it names one.
struct Explanation {
    std::string text;
    std::string operator_name;
};

// An engine of a runtime whose status codes say little: why something failed is on standard error.
template <typename Session>
class LoggedSessionEngine : public SessionEngine<Session> {
  public:
    using SessionEngine<Session>::SessionEngine;

    void run() override {
        try {
            this->session().run();
        } catch (const Failure&) {  // once more, to hear why: the counted run writes to no file of ours
            with_log([this] { this->session().run(); });
            throw;
        }
    }

  protected:
    virtual Explanation explain(const std::string& log) const = 0;

    template <typename Work>
    auto with_log(Work work) const -> decltype(work()) {
        StderrCapture log(this->options().output_dir + "/runtime.log");
        try {
            return work();
        } catch (const Failure& failure) {
            const Explanation found = explain(log.text());
            throw Failure(failure.stage(), std::string(failure.what()) + "\n" + found.text, found.operator_name);
        }
    }
};

}  // namespace edgekit

#endif
