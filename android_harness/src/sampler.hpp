// Sampler: table + latent + noise + U-Net -> final latent. The one loop (docs/formats.md, "Sampler tables").
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "table.hpp"

namespace quadbench {

class Sampler {
 public:
  // `latent_elements`: of one (4, h, w); `channels`: 4; `longest`: the most steps that a table will have.
  Sampler(std::size_t latent_elements, std::size_t channels, std::size_t longest);

  struct Inputs {
    std::span<const float> latent;  // z, (4, h, w); zeros for text-to-image
    std::span<const float> noise;   // (1 + steps, 4, h, w)
    std::span<const float> mask;    // (h, w), 1 = replace; empty outside inpaint
  };

  // Turns the U-Net input of a step into its eps.
  using Eps = std::function<void(std::size_t step, std::span<float> eps)>;

  // Inside the timed region: allocates nothing. Each step's U-Net input is written to `unet_input`. The result is valid until the
  // next run.
  std::span<const float> run(const Table& table, const Inputs& inputs, std::span<float> unet_input, const Eps& eps);

  std::span<const float> eps(std::size_t step) const { return eps_[step]; }

 private:
  void advance(const Step& step, std::size_t index, const Inputs& inputs);
  void keep_known(const Step& step, const Inputs& inputs);

  std::size_t channels_;
  std::vector<float> x_start_;
  std::vector<float> x_;
  std::vector<std::vector<float>> eps_;
};

}  // namespace quadbench
