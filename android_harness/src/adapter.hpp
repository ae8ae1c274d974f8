// Adapters: safetensors file -> LoRA inputs bound to memory. One binding per resident adapter; switching is choosing a binding.
#pragma once

#include <filesystem>
#include <functional>
#include <list>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "plan.hpp"
#include "session.hpp"
#include "tensor.hpp"

namespace quadbench {

enum class Residence {
  kCold,      // read for the first time in this launch
  kWarm,      // read again after it was evicted
  kResident,  // already bound
};

std::string to_string(Residence residence);

// Throws InputError unless the file has tensors of the graph's inputs and no others, for each of its sites both, with the inputs'
// types and shapes but for a rank of 1 up to theirs, and was made for the base; nothing is any base.
void check_adapter(const std::filesystem::path& file, const std::vector<TensorInfo>& lora_inputs,
                   const std::optional<BaseDigests>& base);

class AdapterCache {
 public:
  // Makes a binding with everything bound but the LoRA inputs.
  using BindData = std::function<Binding()>;

  // Holds up to `capacity` adapters besides "no adapter"; the least recently used one goes first.
  AdapterCache(std::vector<TensorInfo> lora_inputs, BindData bind_data, std::size_t capacity);

  const std::vector<TensorInfo>& lora_inputs() const { return lora_inputs_; }

  // Ranks that the adapter does not fill, and sites that it lacks, are zeros.
  Residence choose(const std::string& name, const std::filesystem::path& file);
  void choose_none();  // zeros in every LoRA input
  const Binding& chosen() const { return *chosen_; }

 private:
  struct Resident {
    std::string name;
    Buffer memory;
    Binding binding;
  };
  Resident read(const std::string& name, const std::filesystem::path& file) const;

  std::vector<TensorInfo> lora_inputs_;
  std::vector<std::size_t> offsets_;  // of each LoRA input in an adapter's memory
  std::size_t memory_bytes_ = 0;
  BindData bind_data_;
  std::size_t capacity_;
  std::list<Resident> residents_;  // most recently used first
  std::set<std::string> seen_;
  std::optional<Resident> none_;
  const Binding* chosen_ = nullptr;
};

}  // namespace quadbench
