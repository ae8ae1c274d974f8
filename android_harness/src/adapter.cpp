#include "adapter.hpp"

#include <algorithm>

#include "errors.hpp"
#include "safetensors.hpp"

namespace quadbench {
namespace {

constexpr std::size_t kTensorAlignment = 64;

void check_adapter(const SafeTensors& file, const std::vector<TensorInfo>& lora_inputs) {
  for (const TensorInfo& input : lora_inputs) file.require(input);
  for (const auto& entry : file.entries()) {
    const bool known =
        std::any_of(lora_inputs.begin(), lora_inputs.end(), [&](const auto& input) { return input.name == entry.first; });
    if (!known) {
      throw InputError(file.name(),
                       "adapter '" + file.name() + "' has a tensor '" + entry.first + "' that is no input of the graph");
    }
  }
}

// An adapter's integers mean nothing under other scales, and they would run all the same.
void check_base(const SafeTensors& file, const BaseDigests& base) {
  for (const auto& [key, expected] : {std::pair{"base_graph", base.graph}, std::pair{"base_profile", base.profile}}) {
    const auto found = file.metadata().find(key);
    if (found != file.metadata().end() && found->second == expected) continue;
    const std::string said = found == file.metadata().end() ? "no " + std::string(key) : key + (" " + found->second);
    throw InputError(file.name(), "adapter '" + file.name() + "' was made for another base or profile: it says " + said +
                                      ", expected " + expected + "; admit it to this bundle");
  }
}

}  // namespace

std::string to_string(Residence residence) {
  switch (residence) {
    case Residence::kCold: return "cold";
    case Residence::kWarm: return "warm";
    case Residence::kResident: return "resident";
  }
  return "unknown";
}

void check_adapter(const std::filesystem::path& file, const std::vector<TensorInfo>& lora_inputs,
                   const std::optional<BaseDigests>& base) {
  const SafeTensors tensors(file);
  if (base) check_base(tensors, *base);
  check_adapter(tensors, lora_inputs);
}

AdapterCache::AdapterCache(std::vector<TensorInfo> lora_inputs, BindData bind_data, std::size_t capacity)
    : lora_inputs_(std::move(lora_inputs)), bind_data_(std::move(bind_data)), capacity_(capacity) {
  for (const TensorInfo& input : lora_inputs_) {
    offsets_.push_back(memory_bytes_);
    memory_bytes_ += (input.bytes() + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  }
}

Residence AdapterCache::choose(const std::string& name, const std::filesystem::path& file) {
  const auto found = std::find_if(residents_.begin(), residents_.end(), [&](const Resident& one) { return one.name == name; });
  if (found != residents_.end()) {
    residents_.splice(residents_.begin(), residents_, found);
    chosen_ = &residents_.front().binding;
    return Residence::kResident;
  }
  chosen_ = nullptr;
  if (residents_.size() == capacity_) residents_.pop_back();
  residents_.push_front(read(name, file));
  chosen_ = &residents_.front().binding;
  return seen_.insert(name).second ? Residence::kCold : Residence::kWarm;
}

void AdapterCache::choose_none() {
  if (!none_) {
    std::size_t longest = 0;
    for (const TensorInfo& input : lora_inputs_) longest = std::max(longest, input.bytes());
    none_.emplace(Resident{.name = {}, .memory = Buffer(longest), .binding = bind_data_()});
    for (const TensorInfo& input : lora_inputs_) none_->binding.input(input, none_->memory.bytes());
  }
  chosen_ = &none_->binding;
}

AdapterCache::Resident AdapterCache::read(const std::string& name, const std::filesystem::path& file) const {
  const SafeTensors tensors(file);
  check_adapter(tensors, lora_inputs_);
  Resident resident{.name = name, .memory = Buffer(memory_bytes_), .binding = bind_data_()};
  for (std::size_t i = 0; i < lora_inputs_.size(); ++i) {
    const auto memory = resident.memory.bytes().subspan(offsets_[i], lora_inputs_[i].bytes());
    std::ranges::copy(tensors.require(lora_inputs_[i]), memory.begin());
    resident.binding.input(lora_inputs_[i], memory);
  }
  return resident;
}

}  // namespace quadbench
