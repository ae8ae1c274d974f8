// The graphs that all tasks share: text encoder, VAE encoder, VAE decoder. One input, one output each, bound once.
#pragma once

#include <optional>
#include <string>

#include "session.hpp"

namespace quadbench {

// What the shapes of all graphs have to agree on.
struct Dimensions {
  Shape image;    // (1, 3, H, W)
  Shape latent;   // (1, 4, h, w)
  Shape tokens;   // (1, T)
  Shape context;  // (1, T, D)

  int height() const { return static_cast<int>(image[2]); }
  int width() const { return static_cast<int>(image[3]); }
  int latent_height() const { return static_cast<int>(latent[2]); }
  int latent_width() const { return static_cast<int>(latent[3]); }
  std::size_t channels() const { return static_cast<std::size_t>(latent[1]); }
};

// Throws InputError unless the tensor is named so, has this type and, where one is given, this shape.
void require_tensor(const std::string& graph, const TensorInfo& found, const TensorInfo& wanted);

class Component {
 public:
  // Throws InputError unless the graph has just these two. An empty shape takes what is there.
  Component(Session session, const TensorInfo& input, const TensorInfo& output);

  const TensorInfo& input_info() const { return session_.inputs()[0]; }
  const TensorInfo& output_info() const { return session_.outputs()[0]; }
  std::uintmax_t file_bytes() const { return session_.file_bytes(); }

  template <class T>
  std::span<T> input() {
    return input_.as<T>();
  }
  std::span<const float> output() { return output_.as<float>(); }
  void run() { session_.run(binding_); }

 private:
  Session session_;
  Buffer input_;
  Buffer output_;
  Binding binding_;
};

struct Components {
  Component text_encoder;
  std::optional<Component> vae_encoder;
  Component vae_decoder;

  std::uintmax_t file_bytes() const;
};

Component text_encoder(Session session);
Component vae_encoder(Session session, const Dimensions& dimensions);
Component vae_decoder(Session session);

Dimensions dimensions_of(const Component& text_encoder, const Component& vae_decoder);

}  // namespace quadbench
