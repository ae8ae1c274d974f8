// Adapters: safetensors file -> LoRA inputs bound to memory. One binding per resident adapter; switching is choosing a binding.
// The next adapter can be read by a thread of its own while a task runs.
#pragma once

#include <filesystem>
#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <memory>
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
  kPreloaded, // read while another task ran
  kResident,  // already bound
};

std::string to_string(Residence residence);

// The dimension of a LoRA input that is its rank: 0 of `down` (r, in[, k, k]), 1 of `up` (out, r[, 1, 1]).
std::size_t rank_axis(const TensorInfo& input);

// Throws InputError unless the input is integers or floats of a pair's `down` or `up`.
void require_lora_input(const std::string& graph, const TensorInfo& input);

// Throws InputError unless the file has tensors of the graph's inputs and no others, for each of its sites both, with the inputs'
// types and shapes but for a rank of 1 up to theirs, and was made for the base; nothing is any base.
void check_adapter(const std::filesystem::path& file, const std::vector<TensorInfo>& lora_inputs,
                   const std::optional<BaseDigests>& base);

// A file of a mix, with the factor on its `up`, from -1 to 1: so no integer leaves its range.
struct AdapterPart {
  std::filesystem::path file;
  double factor = 1.0;
};

// A name, and the parts that lie beside each other at every site; ranks that they do not fill are zeros.
struct NamedAdapter {
  std::string name;
  std::vector<AdapterPart> parts;
};

class AdapterCache {
 public:
  // Makes a binding with everything bound but the LoRA inputs. May be called from a thread beside a running session.
  using BindData = std::function<Binding()>;

  // Holds adapters of up to `capacity_bytes` besides "no adapter", and the chosen one in any case; the least recently used one
  // goes first.
  AdapterCache(std::vector<TensorInfo> lora_inputs, BindData bind_data, std::size_t capacity_bytes);

  const std::vector<TensorInfo>& lora_inputs() const { return lora_inputs_; }

  // Waits where the adapter is being read. Throws InputError if its parts have more ranks than the inputs.
  Residence choose(const NamedAdapter& adapter);
  void choose_none();  // zeros in every LoRA input
  const Binding& chosen() const { return chosen_->binding; }

  // Reads an adapter ahead of its task. False where it is there, or there is no room for it beside the others; nothing was read
  // then.
  bool hold(const NamedAdapter& adapter);

  // Begins to read an adapter, unless it is there, another one is being read, or there is no room beside the chosen one.
  // What is wrong with it is thrown when it is chosen.
  void preload(const NamedAdapter& adapter);

  // How long the last preloaded adapter that was chosen took to read; nothing where it was told already.
  std::optional<std::int64_t> take_preload_ns();

  std::size_t resident_bytes() const;  // of adapters that are held, the one that is being read included

 private:
  struct Resident {
    std::string name;
    Buffer memory;
    Binding binding;
    std::int64_t elapsed_ns = 0;  // that reading it took
  };
  using Shared = std::shared_ptr<const Resident>;  // held by the cache, and by whoever runs with it
  struct Pending {
    std::string name;
    std::future<Shared> future;
  };

  Shared read(const NamedAdapter& adapter) const;
  bool is_resident(const std::string& name) const;
  Shared take_resident(const std::string& name);
  void make_room();
  void keep(Shared adapter);

  std::vector<TensorInfo> lora_inputs_;
  std::size_t memory_bytes_ = 0;  // the most that an adapter takes
  BindData bind_data_;
  std::size_t capacity_bytes_;
  std::list<Shared> residents_;  // most recently used first
  std::set<std::string> seen_;
  Shared none_;
  Shared chosen_;
  std::optional<std::int64_t> preload_ns_;
  std::optional<Pending> pending_;  // last, so that its thread has ended before anything else goes
};

}  // namespace quadbench
