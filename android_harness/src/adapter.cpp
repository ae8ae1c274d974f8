#include "adapter.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string_view>
#include <type_traits>

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

template <class Value>
void scale_as(std::span<std::byte> bytes, double factor) {
  const std::span<Value> values{reinterpret_cast<Value*>(bytes.data()), bytes.size() / sizeof(Value)};
  for (Value& value : values) {
    if constexpr (std::is_integral_v<Value>) value = static_cast<Value>(std::nearbyint(value * factor));
    else value *= static_cast<Value>(factor);
  }
}

void scale(std::span<std::byte> bytes, DType dtype, double factor) {
  switch (dtype) {
    case DType::kFloat32: return scale_as<float>(bytes, factor);
    case DType::kInt32: return scale_as<std::int32_t>(bytes, factor);
    case DType::kInt16: return scale_as<std::int16_t>(bytes, factor);
    case DType::kInt8: return scale_as<std::int8_t>(bytes, factor);
  }
}

// Copies a stored tensor to where its ranks lie in the input, behind the `filled` first ones, times the factor.
void copy_ranks(std::span<const std::byte> stored, const TensorInfo& input, std::size_t filled, double factor,
                std::span<std::byte> memory) {
  const bool is_whole = stored.size() == memory.size();
  const std::size_t rows = is_whole || rank_axis(input) == 0 ? 1 : static_cast<std::size_t>(input.shape[0]);
  const std::size_t stored_row = stored.size() / rows;
  const std::size_t memory_row = memory.size() / rows;
  const std::size_t begin = memory_row / static_cast<std::size_t>(input.shape[rank_axis(input)]) * filled;
  for (std::size_t row = 0; row < rows; ++row) {
    const auto place = memory.subspan(row * memory_row + begin, stored_row);
    std::memcpy(place.data(), &stored[row * stored_row], stored_row);
    if (factor != 1.0) scale(place, input.dtype, factor);
  }
}

void require_room(const std::string& mix, const TensorInfo& input, std::size_t ranks) {
  const std::int64_t room = input.shape[rank_axis(input)];
  if (static_cast<std::int64_t>(ranks) <= room) return;
  throw InputError(mix, "the adapters of '" + mix + "' have rank " + std::to_string(ranks) + " or more together at '" +
                            input.name + "', expected at most " + std::to_string(room));
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

Residence AdapterCache::choose(const std::string& name, const std::vector<AdapterPart>& parts) {
  const auto found = std::find_if(residents_.begin(), residents_.end(), [&](const Resident& one) { return one.name == name; });
  if (found != residents_.end()) {
    residents_.splice(residents_.begin(), residents_, found);
    chosen_ = &residents_.front().binding;
    return Residence::kResident;
  }
  chosen_ = nullptr;
  if (residents_.size() == capacity_) residents_.pop_back();
  residents_.push_front(read(name, parts));
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

AdapterCache::Resident AdapterCache::read(const std::string& name, const std::vector<AdapterPart>& parts) const {
  Resident resident{.name = name, .memory = Buffer(memory_bytes_), .binding = bind_data_()};
  const auto memory_of = [&](std::size_t i) { return resident.memory.bytes().subspan(offsets_[i], lora_inputs_[i].bytes()); };
  std::vector<std::size_t> filled(lora_inputs_.size());
  for (const AdapterPart& part : parts) {
    const SafeTensors tensors(part.file);
    const auto stored = stored_inputs(tensors, lora_inputs_);
    for (std::size_t i = 0; i < lora_inputs_.size(); ++i) {
      if (!stored[i]) continue;
      const TensorInfo& input = lora_inputs_[i];
      const auto rank = static_cast<std::size_t>(stored[i]->shape[rank_axis(input)]);
      require_room(name, input, filled[i] + rank);
      copy_ranks(tensors.require(*stored[i]), input, filled[i], rank_axis(input) == 1 ? part.factor : 1.0, memory_of(i));
      filled[i] += rank;
    }
  }
  for (std::size_t i = 0; i < lora_inputs_.size(); ++i) resident.binding.input(lora_inputs_[i], memory_of(i));
  return resident;
}

}  // namespace quadbench
