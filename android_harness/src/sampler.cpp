#include "sampler.hpp"

namespace quadbench {

Sampler::Sampler(std::size_t latent_elements, std::size_t channels, std::size_t longest)
    : channels_(channels), x_start_(latent_elements), x_(latent_elements), eps_(longest, std::vector<float>(latent_elements)) {}

std::span<const float> Sampler::run(const Table& table, const Inputs& inputs, std::span<float> unet_input, const Eps& eps) {
  for (std::size_t k = 0; k < x_.size(); ++k) {
    x_start_[k] = static_cast<float>(table.start.latent * inputs.latent[k] + table.start.noise * inputs.noise[k]);
  }
  x_ = x_start_;
  for (std::size_t i = 0; i < table.steps.size(); ++i) {
    const Step& step = table.steps[i];
    for (std::size_t k = 0; k < x_.size(); ++k) unet_input[k] = static_cast<float>(step.input_scale * x_[k]);
    eps(i, eps_[i]);
    advance(step, i, inputs);
    if (!inputs.mask.empty()) keep_known(step, inputs);
  }
  return x_;
}

void Sampler::advance(const Step& step, std::size_t index, const Inputs& inputs) {
  const auto noise = inputs.noise.subspan((index + 1) * x_.size(), x_.size());
  for (std::size_t k = 0; k < x_.size(); ++k) {
    double next = step.x_start * x_start_[k] + step.x * x_[k] + step.noise * noise[k];
    for (std::size_t j = 0; j <= index; ++j) next += step.eps[j] * eps_[j][k];
    x_[k] = static_cast<float>(next);
  }
}

void Sampler::keep_known(const Step& step, const Inputs& inputs) {
  const std::size_t plane = x_.size() / channels_;
  for (std::size_t k = 0; k < x_.size(); ++k) {
    const double mask = inputs.mask[k % plane];
    const double known = step.known.latent * inputs.latent[k] + step.known.noise * inputs.noise[k];
    x_[k] = static_cast<float>(mask * x_[k] + (1.0 - mask) * known);
  }
}

}  // namespace quadbench
