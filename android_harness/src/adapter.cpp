#include "adapter.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>

#include "errors.hpp"
#include "safetensors.hpp"

namespace quadbench {
namespace {

constexpr std::size_t kTensorAlignment = 64;

// Dimension 0 of `down` (r, in[, k, k]), 1 of `up` (out, r[, 1, 1]).
std::size_t rank_axis(const TensorInfo& input) { return input.name.ends_with(".up") ? 1 : 0; }

// An input as the file has it, at the adapter's own rank; nothing where the file lacks it.
std::optional<TensorInfo> stored_input(const SafeTensors& file, const TensorInfo& input) {
  const auto entry = file.entries().find(input.name);
  if (entry == file.entries().end()) return std::nullopt;
  TensorInfo stored = input;
  const Shape& shape = entry->second.shape;
  const std::size_t axis = rank_axis(input);
  if (shape.size() == input.shape.size()) {
    if (shape[axis] < 1 || shape[axis] > input.shape[axis]) {
      throw InputError(file.name(), "tensor '" + input.name + "' of '" + file.name() + "' has rank " +
                                        std::to_string(shape[axis]) + ", expected 1 to " + std::to_string(input.shape[axis]));
    }
    stored.shape[axis] = shape[axis];
  }
  file.require(stored);
  return stored;
}

// A site's tensors are both there with equal ranks, or both absent.
void check_pairs(const SafeTensors& file, const std::vector<std::optional<TensorInfo>>& stored) {
  std::map<std::string, std::int64_t> single;  // the ranks of tensors whose other half has not come yet, by site
  for (const auto& tensor : stored) {
    if (!tensor) continue;
    const std::string site = tensor->name.substr(0, tensor->name.rfind('.'));
    const std::int64_t rank = tensor->shape[rank_axis(*tensor)];
    const auto [first, is_new] = single.emplace(site, rank);
    if (is_new) continue;
    if (first->second != rank) {
      throw InputError(file.name(), "adapter '" + file.name() + "' has ranks " + std::to_string(first->second) + " and " +
                                        std::to_string(rank) + " in the two tensors of '" + site + "'");
    }
    single.erase(first);
  }
  if (single.empty()) return;
  throw InputError(file.name(),
                   "adapter '" + file.name() + "' has one tensor of '" + single.begin()->first + "', expected down and up");
}

// The graph's inputs as the file has them, in their order.
std::vector<std::optional<TensorInfo>> stored_inputs(const SafeTensors& file, const std::vector<TensorInfo>& lora_inputs) {
  std::vector<std::optional<TensorInfo>> stored;
  std::set<std::string_view> known;
  for (const TensorInfo& input : lora_inputs) {
    known.insert(input.name);
    stored.push_back(stored_input(file, input));
  }
  if (file.entries().empty()) throw InputError(file.name(), "adapter '" + file.name() + "' has no tensors");
  for (const auto& entry : file.entries()) {
    if (known.contains(entry.first)) continue;
    throw InputError(file.name(),
                     "adapter '" + file.name() + "' has a tensor '" + entry.first + "' that is no input of the graph");
  }
  check_pairs(file, stored);
  return stored;
}

// Copies a stored tensor to where its values lie in the input; the ranks beyond its own are left as they are.
void copy_padded(std::span<const std::byte> stored, const TensorInfo& input, std::span<std::byte> memory) {
  const bool is_whole = stored.size() == memory.size();
  const std::size_t rows = is_whole || rank_axis(input) == 0 ? 1 : static_cast<std::size_t>(input.shape[0]);
  const std::size_t stored_row = stored.size() / rows;
  const std::size_t memory_row = memory.size() / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    std::memcpy(&memory[row * memory_row], &stored[row * stored_row], stored_row);
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
  stored_inputs(tensors, lora_inputs);
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
  const auto stored = stored_inputs(tensors, lora_inputs_);
  Resident resident{.name = name, .memory = Buffer(memory_bytes_), .binding = bind_data_()};
  for (std::size_t i = 0; i < lora_inputs_.size(); ++i) {
    const auto memory = resident.memory.bytes().subspan(offsets_[i], lora_inputs_[i].bytes());
    if (stored[i]) copy_padded(tensors.require(*stored[i]), lora_inputs_[i], memory);
    resident.binding.input(lora_inputs_[i], memory);
  }
  return resident;
}

}  // namespace quadbench
