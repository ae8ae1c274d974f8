// Pipeline: task + item -> image, with the clock running. Everything it needs is allocated when it is made.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "components.hpp"
#include "image.hpp"
#include "interrupt.hpp"
#include "sampler.hpp"
#include "task.hpp"
#include "unet.hpp"

namespace quadbench {

// A graph that had to be loaded again, as the memory budget had sent it away.
struct Reload {
  std::string component;
  std::int64_t elapsed_ns = 0;
};

struct ImageTimes {
  std::vector<std::int64_t> encoder_ns;  // of each encoder, with and without prompt
  std::int64_t vae_encoder_ns = 0;  // 0 where the task takes no image
  std::int64_t first_run_ns = 0;    // the first U-Net run alone
  std::vector<std::int64_t> unet_ns;
  std::int64_t vae_decoder_ns = 0;
  std::int64_t end_to_end_ns = 0;
  std::vector<Reload> reloads;

  std::int64_t residual_ns() const;  // what none of the others explains
};

// What an encoder gives in one of its outputs.
struct Encoded {
  std::vector<float> prompt;
  std::vector<float> negative;
};

class Pipeline {
 public:
  // `longest`: the most steps that a task has.
  Pipeline(Components& components, MemoryBudget& budget, const Dimensions& dimensions, std::size_t longest,
           const Interrupt& interrupt);

  // The timed region. Throws Interrupted after a U-Net run.
  void run(const Task& task, const Item& item, UNet& unet);

  // Of the last run, after it.
  const ImageTimes& times() const { return times_; }
  const Pixels& image() const { return image_; }
  void require_finite(const Task& task, const Item& item);  // throws RunError that names the first stage with a NaN or infinity

 private:
  void require(Component& component);
  void encode_prompts(const Task& task, const Item& item);
  void encode(Component& encoder, const TokenIds& tokens, std::vector<float> Encoded::*prompt, std::size_t first);
  void give_prompt(const Task& task, const Item& item, UNet& unet, bool is_negative);
  void encode_image(const Item& item);
  void predict(const Task& task, const Item& item, UNet& unet, std::size_t step, std::span<float> eps);
  void decode(std::span<const float> latent);

  Components& components_;
  MemoryBudget& budget_;
  const Interrupt& interrupt_;
  Sampler sampler_;
  std::vector<float> latent_;            // z
  std::vector<Encoded> encoded_;         // as Dimensions::encoded
  Pixels image_;
  ImageTimes times_;
};

}  // namespace quadbench
