// UNet: a session with buffers for its data inputs, and the adapters bound to it.
#pragma once

#include <string>
#include <vector>

#include "adapter.hpp"
#include "components.hpp"
#include "session.hpp"

namespace quadbench {

class UNet {
 public:
  // Throws InputError unless the graph has `sample`, `time_features`, `encoder_hidden_states`, LoRA inputs and the output `eps`,
  // with the shapes of the other graphs.
  UNet(Session session, const Dimensions& dimensions, std::size_t adapter_cache_bytes);

  std::size_t time_features() const { return time_features_.size() / sizeof(float); }
  std::uintmax_t file_bytes() const { return session_.file_bytes(); }
  AdapterCache& adapters() { return adapters_; }

  // Inside the timed region: fill these, run, read `eps`.
  std::span<float> sample_input() { return sample_.as<float>(); }
  std::span<float> time_features_input() { return time_features_.as<float>(); }
  std::span<float> context_input() { return context_.as<float>(); }
  void run() { session_.run(adapters_.chosen()); }
  std::span<const float> eps() { return eps_.as<float>(); }

 private:
  UNet(const UNet&) = delete;
  UNet& operator=(const UNet&) = delete;
  const TensorInfo& input(const std::string& name) const;
  std::vector<TensorInfo> lora_inputs() const;
  Binding bind_data();

  Session session_;
  Buffer sample_;
  Buffer time_features_;
  Buffer context_;
  Buffer eps_;
  AdapterCache adapters_;
};

}  // namespace quadbench
