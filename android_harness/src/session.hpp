// Session: a graph ready to run, and the bindings of its inputs and outputs to memory, in whatever runtime loaded it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "plan.hpp"
#include "tensor.hpp"

namespace quadbench {

// What a graph takes for the file of this name that its weights lie in. Must outlive the session's creation, no longer.
struct FileInMemory {
  std::string name;
  std::span<std::byte> bytes;
};

struct SessionSettings {
  int intra_op_threads = 1;
  Optimization optimization = Optimization::kAll;
  std::optional<ProviderPlan> execution_provider;
  bool shares_context = false;  // with other sessions whose graphs are in the same context of a provider
  std::optional<FileInMemory> weights;  // nothing: they are read from the file beside the graph, if not from the graph
};

// Which memory each input and output of a session uses. The memory and the session must outlive it.
class Binding {
 public:
  // The part that a runtime fills in.
  class Form {
   public:
    virtual ~Form() = default;
    virtual void input(const TensorInfo& info, std::span<std::byte> memory) = 0;
    virtual void output(const TensorInfo& info, std::span<std::byte> memory) = 0;
    virtual void run() = 0;
  };

  explicit Binding(std::unique_ptr<Form> form) : form_(std::move(form)) {}

  void input(const TensorInfo& info, std::span<std::byte> memory) { form_->input(info, memory); }
  void output(const TensorInfo& info, std::span<std::byte> memory) { form_->output(info, memory); }

 private:
  friend class Session;
  std::unique_ptr<Form> form_;
};

class Session {
 public:
  // The part that a runtime fills in.
  class Form {
   public:
    virtual ~Form() = default;
    virtual Binding binding() const = 0;
    virtual std::vector<TensorInfo> inputs() const = 0;
    virtual std::vector<TensorInfo> outputs() const = 0;
  };

  // `name` stands in messages. Throws InputError where the graph's file cannot be read.
  Session(std::unique_ptr<Form> form, const std::filesystem::path& graph, std::string name);

  const std::string& name() const { return name_; }
  const std::vector<TensorInfo>& inputs() const { return inputs_; }
  const std::vector<TensorInfo>& outputs() const { return outputs_; }
  std::uintmax_t file_bytes() const { return file_bytes_; }

  Binding binding() const { return form_->binding(); }  // with nothing bound yet

  // What the timed regions are about: nothing but the call.
  void run(const Binding& binding) { binding.form_->run(); }

 private:
  std::string name_;
  std::uintmax_t file_bytes_;
  std::unique_ptr<Form> form_;
  std::vector<TensorInfo> inputs_;
  std::vector<TensorInfo> outputs_;
};

// Throws InputError unless all sizes are known.
void require_static(const std::string& graph, const TensorInfo& info);

}  // namespace quadbench
