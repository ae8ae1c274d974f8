// Session: a graph ready to run, and the bindings of its inputs and outputs to memory.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ort.hpp"
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
  std::optional<FileInMemory> weights;  // nothing: they are read from the file beside the graph, if not from the graph
};

// Which memory each input and output of a session uses. The memory must outlive it.
class Binding {
 public:
  Binding(const Runtime& runtime, Handle<OrtIoBinding> binding) : runtime_(&runtime), binding_(std::move(binding)) {}

  void input(const TensorInfo& info, std::span<std::byte> memory);
  void output(const TensorInfo& info, std::span<std::byte> memory);
  const OrtIoBinding* get() const { return binding_.get(); }

 private:
  OrtValue* value(const TensorInfo& info, std::span<std::byte> memory);

  const Runtime* runtime_;
  Handle<OrtIoBinding> binding_;
  std::vector<Handle<OrtValue>> values_;
};

class Session {
 public:
  // Reads and optimizes the graph. `name` stands in messages. Throws InputError unless every input and output has a static shape.
  Session(const Runtime& runtime, const std::filesystem::path& graph, const SessionSettings& settings, std::string name);

  const std::string& name() const { return name_; }
  const std::vector<TensorInfo>& inputs() const { return inputs_; }
  const std::vector<TensorInfo>& outputs() const { return outputs_; }
  std::uintmax_t file_bytes() const { return file_bytes_; }

  Binding binding() const;  // with nothing bound yet

  // What the timed regions are about: nothing but the call.
  void run(const Binding& binding);

 private:
  const Runtime* runtime_;
  std::string name_;
  std::uintmax_t file_bytes_;
  Handle<OrtSession> session_;
  std::vector<TensorInfo> inputs_;
  std::vector<TensorInfo> outputs_;
};

}  // namespace quadbench
