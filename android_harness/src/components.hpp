// The graphs that all tasks share: encoders of prompts, VAE encoder, VAE decoder. Under a memory budget they are loaded when they
// are needed, and those that were used longest ago go.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "session.hpp"

namespace quadbench {

// What the shapes of all graphs have to agree on.
struct Dimensions {
  Shape image;   // (1, 3, H, W)
  Shape latent;  // (1, 4, h, w)
  std::vector<TensorInfo> tokens;   // inputs of the encoders, int32 (1, T)
  std::vector<TensorInfo> encoded;  // outputs of the encoders, float32 (1, ...), each encoder's after those of the one before

  int height() const { return static_cast<int>(image[2]); }
  int width() const { return static_cast<int>(image[3]); }
  int latent_height() const { return static_cast<int>(latent[2]); }
  int latent_width() const { return static_cast<int>(latent[3]); }
  std::size_t channels() const { return static_cast<std::size_t>(latent[1]); }
};

// Throws InputError unless the tensor is named so, has this type and, where one is given, this shape.
void require_tensor(const std::string& graph, const TensorInfo& found, const TensorInfo& wanted);

// The tensor of this name; null where there is none.
const TensorInfo* find_tensor(const std::vector<TensorInfo>& infos, const std::string& name);

class Component {
 public:
  using Load = std::function<Session()>;
  using Check = std::function<void(const Session&)>;

  // Loads the graph, whose inputs and outputs `check` may refuse.
  Component(Load loader, const Check& check);

  const std::string& name() const { return name_; }
  const std::vector<TensorInfo>& inputs() const { return inputs_; }
  const std::vector<TensorInfo>& outputs() const { return outputs_; }
  std::uintmax_t file_bytes() const { return file_bytes_; }

  bool is_loaded() const { return loaded_.has_value(); }
  std::size_t held_bytes() const { return held_bytes_; }  // by which the process grew when the graph was loaded
  void load();
  void unload();  // gives its memory back; the buffers of inputs and outputs stay

  template <class T>
  std::span<T> input(std::size_t index = 0) {
    return input_buffers_[index].as<T>();
  }
  std::span<const float> output(std::size_t index = 0) { return output_buffers_[index].as<float>(); }
  void run() { loaded_->session.run(loaded_->binding); }

 private:
  struct Loaded {
    Session session;
    Binding binding;
  };
  void bind();

  Load loader_;
  std::optional<Loaded> loaded_;
  std::string name_;
  std::vector<TensorInfo> inputs_;
  std::vector<TensorInfo> outputs_;
  std::uintmax_t file_bytes_ = 0;
  std::size_t held_bytes_ = 0;
  std::vector<Buffer> input_buffers_;
  std::vector<Buffer> output_buffers_;
};

struct Components {
  std::vector<Component> encoders;  // by name
  std::optional<Component> vae_encoder;
  Component vae_decoder;

  std::uintmax_t file_bytes() const;  // of those that are loaded
};

Component prompt_encoder(Component::Load loader);
Component vae_encoder(Component::Load loader, const Dimensions& dimensions);
Component vae_decoder(Component::Load loader);

// Keeps what the loaded graphs hold within a budget as far as it can: the U-Net stays, and so does what is about to run.
class MemoryBudget {
 public:
  // No budget: everything stays loaded.
  MemoryBudget(Components& components, std::optional<std::size_t> bytes);

  void set_unet_bytes(std::size_t bytes);  // what the loaded U-Nets hold, and what merges adapters into them

  // Loads the component where it is not, after others went. Returns the time that this took in nanoseconds.
  std::int64_t require(Component& component);

 private:
  std::size_t held_bytes() const;
  void unload_others(const Component& wanted, std::size_t more);

  std::optional<std::size_t> bytes_;
  std::size_t unet_bytes_ = 0;
  std::vector<Component*> components_;  // used longest ago first
};

// Throws InputError where two encoders have an output of the same name.
Dimensions dimensions_of(const std::vector<Component>& encoders, const Component& vae_decoder);

}  // namespace quadbench
