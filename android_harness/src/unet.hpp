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
  // Throws InputError unless the graph has `sample` and the output `eps` with the shape of a latent, and besides LoRA inputs only
  // conditions: float32 of batch 1.
  UNet(Session session, const Dimensions& dimensions, std::size_t adapter_cache_bytes);

  const std::vector<TensorInfo>& conditions() const { return conditions_; }
  std::uintmax_t file_bytes() const { return session_.file_bytes(); }
  AdapterCache& adapters() { return adapters_; }

  // Inside the timed region: fill these, run, read `eps`.
  std::span<float> sample_input() { return sample_.as<float>(); }
  std::span<float> condition_input(std::size_t index) { return condition_buffers_[index].as<float>(); }
  void run() { session_.run(adapters_.chosen()); }
  std::span<const float> eps() { return eps_.as<float>(); }

 private:
  UNet(const UNet&) = delete;
  UNet& operator=(const UNet&) = delete;
  const TensorInfo& input(const std::string& name) const;
  std::vector<TensorInfo> condition_inputs() const;
  std::vector<TensorInfo> lora_inputs() const;
  Binding bind_data();

  Session session_;
  Buffer sample_;
  std::vector<TensorInfo> conditions_;
  std::vector<Buffer> condition_buffers_;
  Buffer eps_;
  AdapterCache adapters_;
};

}  // namespace quadbench
