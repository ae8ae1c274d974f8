#include "adapter.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string_view>
#include <type_traits>
#include <utility>

#include "clock.hpp"
#include "errors.hpp"
#include "host.hpp"
#include "safetensors.hpp"

namespace quadbench {
namespace {

constexpr std::size_t kTensorAlignment = 64;

std::size_t padded_bytes(const TensorInfo& input) {
  return (input.bytes() + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

std::size_t padded_bytes(const std::vector<TensorInfo>& inputs) {
  std::size_t bytes = 0;
  for (const TensorInfo& input : inputs) bytes += padded_bytes(input);
  return bytes;
}

// The input as a run takes it from an adapter with so many ranks; others are filled up with zeros.
TensorInfo with_rank(TensorInfo input, std::size_t rank) {
  if (input.has_free_rank) input.shape[rank_axis(input)] = static_cast<std::int64_t>(rank);
  return input;
}

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
                     "adapter '" + file.name() + "' has a tensor '" + entry.first + "' that is not an input of the graph");
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
  throw InputError(mix, "the adapters of '" + mix + "' have a total rank of " + std::to_string(ranks) + " or more at '" +
                            input.name + "', expected at most " + std::to_string(room));
}

// An adapter's integers mean nothing under other scales, and they would run all the same.
void check_base(const SafeTensors& file, const BaseDigests& base) {
  for (const auto& [key, expected] : {std::pair{"base_graph", base.graph}, std::pair{"base_profile", base.profile}}) {
    const auto found = file.metadata().find(key);
    if (found != file.metadata().end() && found->second == expected) continue;
    const std::string said = found == file.metadata().end() ? "no " + std::string(key) : key + (" " + found->second);
    throw InputError(file.name(), "adapter '" + file.name() + "' was made for another base or profile: its metadata has " + said +
                                      ", expected " + expected + "; admit it to this bundle");
  }
}

}  // namespace

std::size_t rank_axis(const TensorInfo& input) { return input.name.ends_with(".up") ? 1 : 0; }

std::string to_string(Residence residence) {
  switch (residence) {
    case Residence::kCold: return "cold";
    case Residence::kWarm: return "warm";
    case Residence::kPreloaded: return "preloaded";
    case Residence::kResident: return "resident";
  }
  return "unknown";
}

void require_lora_input(const std::string& graph, const TensorInfo& input) {
  if (input.dtype == DType::kInt32) {
    throw InputError(graph, graph + ": '" + input.name + "' is int32, expected int16, int8 or float32");
  }
  const bool has_side = input.name.ends_with(".down") || input.name.ends_with(".up");
  if (!has_side || (input.shape.size() != 2 && input.shape.size() != 4)) {
    throw InputError(graph, graph + ": '" + input.name + "' is " + input.kind() +
                                ", expected lora.<site>.down or .up of 2 or 4 dimensions");
  }
}

void check_adapter(const std::filesystem::path& file, const std::vector<TensorInfo>& lora_inputs,
                   const std::optional<BaseDigests>& base) {
  const SafeTensors tensors(file);
  if (base) check_base(tensors, *base);
  stored_inputs(tensors, lora_inputs);
}

AdapterCache::AdapterCache(std::vector<TensorInfo> lora_inputs, BindData bind_data, std::size_t capacity_bytes)
    : lora_inputs_(std::move(lora_inputs)),
      memory_bytes_(padded_bytes(lora_inputs_)),
      bind_data_(std::move(bind_data)),
      capacity_bytes_(capacity_bytes) {}

Residence AdapterCache::choose(const NamedAdapter& adapter) {
  if (Shared resident = take_resident(adapter.name)) {
    keep(std::move(resident));
    return Residence::kResident;
  }
  const bool is_new = seen_.insert(adapter.name).second;
  if (pending_ && pending_->name == adapter.name) {
    std::optional<Pending> pending = std::exchange(pending_, std::nullopt);
    keep(pending->future.get());
    preload_ns_ = chosen_->elapsed_ns;
    return Residence::kPreloaded;
  }
  chosen_ = nullptr;
  make_room();
  keep(read(adapter));
  return is_new ? Residence::kCold : Residence::kWarm;
}

void AdapterCache::choose_none() {
  if (!none_) {
    std::vector<TensorInfo> inputs;
    std::size_t longest = 0;
    for (const TensorInfo& input : lora_inputs_) {
      inputs.push_back(with_rank(input, 0));
      longest = std::max(longest, inputs.back().bytes());
    }
    Resident none{.name = {}, .memory = Buffer(longest), .binding = bind_data_()};
    for (const TensorInfo& input : inputs) none.binding.input(input, none.memory.bytes());
    none_ = std::make_shared<const Resident>(std::move(none));
  }
  chosen_ = none_;
}

bool AdapterCache::hold(const NamedAdapter& adapter) {
  if (is_resident(adapter.name) || resident_bytes() + memory_bytes_ > capacity_bytes_) return false;
  seen_.insert(adapter.name);
  residents_.push_back(read(adapter));
  return true;
}

void AdapterCache::preload(const NamedAdapter& adapter) {
  if (pending_ || is_resident(adapter.name)) return;
  const bool is_chosen_held = chosen_ && chosen_ != none_;
  if ((is_chosen_held ? 2 : 1) * memory_bytes_ > capacity_bytes_) return;
  make_room();
  pending_.emplace(Pending{.name = adapter.name, .future = std::async(std::launch::async, [this, adapter] {
                             yield_to_others();
                             return read(adapter);
                           })});
}

std::optional<std::int64_t> AdapterCache::take_preload_ns() { return std::exchange(preload_ns_, std::nullopt); }

std::size_t AdapterCache::resident_bytes() const {
  std::size_t bytes = pending_ ? memory_bytes_ : 0;
  for (const Shared& one : residents_) bytes += one->memory.size();
  return bytes;
}

bool AdapterCache::is_resident(const std::string& name) const {
  return std::any_of(residents_.begin(), residents_.end(), [&](const Shared& one) { return one->name == name; });
}

AdapterCache::Shared AdapterCache::take_resident(const std::string& name) {
  const auto place = std::find_if(residents_.begin(), residents_.end(), [&](const Shared& one) { return one->name == name; });
  if (place == residents_.end()) return nullptr;
  Shared resident = *place;
  residents_.erase(place);
  return resident;
}

// Lets adapters go until one more fits, never the chosen one.
void AdapterCache::make_room() {
  for (auto place = residents_.end(); place != residents_.begin() && resident_bytes() + memory_bytes_ > capacity_bytes_;) {
    --place;
    if (*place != chosen_) place = residents_.erase(place);
  }
}

void AdapterCache::keep(Shared adapter) {
  residents_.push_front(std::move(adapter));
  chosen_ = residents_.front();
}

AdapterCache::Shared AdapterCache::read(const NamedAdapter& adapter) const {
  const std::int64_t begin = now_ns();
  struct Part {
    SafeTensors file;
    std::vector<std::optional<TensorInfo>> stored;
    double factor;
  };
  std::vector<Part> parts;
  std::vector<std::size_t> ranks(lora_inputs_.size());
  for (const AdapterPart& part : adapter.parts) {
    SafeTensors file(part.file);
    auto stored = stored_inputs(file, lora_inputs_);
    for (std::size_t i = 0; i < stored.size(); ++i) {
      if (!stored[i]) continue;
      ranks[i] += static_cast<std::size_t>(stored[i]->shape[rank_axis(lora_inputs_[i])]);
      require_room(adapter.name, lora_inputs_[i], ranks[i]);
    }
    parts.push_back({.file = std::move(file), .stored = std::move(stored), .factor = part.factor});
  }
  std::vector<TensorInfo> inputs;
  for (std::size_t i = 0; i < ranks.size(); ++i) inputs.push_back(with_rank(lora_inputs_[i], ranks[i]));
  Resident resident{.name = adapter.name, .memory = Buffer(padded_bytes(inputs)), .binding = bind_data_()};
  std::size_t offset = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::span<std::byte> memory = resident.memory.bytes().subspan(offset, inputs[i].bytes());
    offset += padded_bytes(inputs[i]);
    std::size_t filled = 0;
    for (const Part& part : parts) {
      if (!part.stored[i]) continue;
      const std::size_t axis = rank_axis(inputs[i]);
      copy_ranks(part.file.require(*part.stored[i]), inputs[i], filled, axis == 1 ? part.factor : 1.0, memory);
      filled += static_cast<std::size_t>(part.stored[i]->shape[axis]);
    }
    resident.binding.input(inputs[i], memory);
  }
  resident.elapsed_ns = now_ns() - begin;
  return std::make_shared<const Resident>(std::move(resident));
}

}  // namespace quadbench
