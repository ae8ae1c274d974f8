#include "pipeline.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "clock.hpp"
#include "errors.hpp"

namespace quadbench {
namespace {

bool is_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

void copy_floats(std::span<const float> from, std::span<float> to) { std::copy(from.begin(), from.end(), to.begin()); }

}  // namespace

std::int64_t ImageTimes::residual_ns() const {
  const std::int64_t unet_total = std::accumulate(unet_ns.begin(), unet_ns.end(), std::int64_t{0});
  const std::int64_t encoder_total = std::accumulate(encoder_ns.begin(), encoder_ns.end(), std::int64_t{0});
  const std::int64_t reload_total = std::accumulate(reloads.begin(), reloads.end(), std::int64_t{0}, [](auto sum, const Reload& reload) {
    return sum + reload.elapsed_ns;
  });
  return end_to_end_ns - encoder_total - vae_encoder_ns - unet_total - vae_decoder_ns - reload_total;
}

Pipeline::Pipeline(Components& components, MemoryBudget& budget, const Dimensions& dimensions, std::size_t longest,
                   const Interrupt& interrupt)
    : components_(components),
      budget_(budget),
      interrupt_(interrupt),
      sampler_(elements_of(dimensions.latent), dimensions.channels(), longest),
      latent_(elements_of(dimensions.latent)),
      image_{.height = dimensions.height(), .width = dimensions.width(), .channels = 3, .data = {}} {
  image_.data.resize(elements_of(dimensions.image));
  times_.unet_ns.reserve(longest);
  times_.encoder_ns.reserve(components.encoders.size());
  for (const TensorInfo& info : dimensions.encoded) {
    encoded_.push_back({.prompt = std::vector<float>(elements_of(info.shape)), .negative = std::vector<float>(elements_of(info.shape))});
  }
}

void Pipeline::run(const Task& task, const Item& item, UNet& unet) {
  times_.unet_ns.assign(task.steps(), 0);
  times_.reloads.clear();
  const std::int64_t begin = now_ns();
  encode_prompts(task, item);
  encode_image(item);
  const auto eps = [&](std::size_t step, std::span<float> out) { predict(task, item, unet, step, out); };
  decode(sampler_.run(task.table(), {.latent = latent_, .noise = item.noise, .mask = item.mask}, unet.sample_input(),
                      std::cref(eps)));
  to_pixels(components_.vae_decoder.output(), image_);
  if (!item.blend.data.empty()) composite(item.blend, item.image, image_);
  times_.end_to_end_ns = now_ns() - begin;
}

void Pipeline::require(Component& component) {
  const std::int64_t elapsed_ns = budget_.require(component);
  if (elapsed_ns > 0) times_.reloads.push_back({.component = component.name(), .elapsed_ns = elapsed_ns});
}

void Pipeline::encode_prompts(const Task& task, const Item& item) {
  times_.encoder_ns.clear();
  std::size_t first = 0;  // of the encoder's outputs, among those of all
  for (Component& encoder : components_.encoders) {
    require(encoder);
    const std::int64_t begin = now_ns();
    encode(encoder, item.tokens, &Encoded::prompt, first);
    if (task.guidance() != 1.0) {
      if (item.negative_tokens) encode(encoder, *item.negative_tokens, &Encoded::negative, first);
      for (std::size_t i = 0; !item.negative_tokens && i < encoder.outputs().size(); ++i) {
        std::fill(encoded_[first + i].negative.begin(), encoded_[first + i].negative.end(), 0.0f);
      }
    }
    times_.encoder_ns.push_back(now_ns() - begin);
    first += encoder.outputs().size();
  }
}

void Pipeline::encode(Component& encoder, const TokenIds& tokens, std::vector<float> Encoded::*prompt, std::size_t first) {
  for (std::size_t i = 0; i < encoder.inputs().size(); ++i) {
    const std::vector<std::int32_t>& ids = tokens.at(encoder.inputs()[i].name);
    std::copy(ids.begin(), ids.end(), encoder.input<std::int32_t>(i).begin());
  }
  encoder.run();
  for (std::size_t i = 0; i < encoder.outputs().size(); ++i) copy_floats(encoder.output(i), encoded_[first + i].*prompt);
}

// The conditions that a negative prompt changes.
void Pipeline::give_prompt(const Task& task, const Item& item, UNet& unet, bool is_negative) {
  for (std::size_t i = 0; i < task.conditions().size(); ++i) {
    const Condition& condition = task.conditions()[i];
    if (condition.source == Condition::Source::kPrompt) {
      const Encoded& encoded = encoded_[condition.encoded];
      copy_floats(is_negative ? encoded.negative : encoded.prompt, unet.condition_input(i));
    } else if (condition.source == Condition::Source::kItem) {
      const std::span<const float> rows = item.conditions.at(i);
      copy_floats(rows.subspan(is_negative ? condition.size : 0, condition.size), unet.condition_input(i));
    }
  }
}

void Pipeline::encode_image(const Item& item) {
  times_.vae_encoder_ns = 0;
  if (item.image.data.empty()) {
    std::fill(latent_.begin(), latent_.end(), 0.0f);
    return;
  }
  Component& encoder = *components_.vae_encoder;
  require(encoder);
  to_floats(item.image, encoder.input<float>());
  const std::int64_t begin = now_ns();
  encoder.run();
  times_.vae_encoder_ns = now_ns() - begin;
  copy_floats(encoder.output(), latent_);
}

void Pipeline::predict(const Task& task, const Item& item, UNet& unet, std::size_t step, std::span<float> eps) {
  const std::int64_t begin = now_ns();
  for (std::size_t i = 0; i < task.conditions().size(); ++i) {
    const Condition& condition = task.conditions()[i];
    if (condition.source == Condition::Source::kTask) copy_floats(condition.row(step), unet.condition_input(i));
  }
  give_prompt(task, item, unet, false);
  const std::int64_t run_begin = now_ns();
  unet.run();
  if (step == 0) times_.first_run_ns = now_ns() - run_begin;
  interrupt_.check("U-Net run");
  copy_floats(unet.eps(), eps);
  if (task.guidance() == 1.0) {
    times_.unet_ns[step] = now_ns() - begin;
    return;
  }
  give_prompt(task, item, unet, true);
  unet.run();
  times_.unet_ns[step] = now_ns() - begin;
  interrupt_.check("U-Net run");
  const auto guidance = static_cast<float>(task.guidance());
  const auto negative = unet.eps();
  for (std::size_t k = 0; k < eps.size(); ++k) eps[k] = negative[k] + guidance * (eps[k] - negative[k]);
}

void Pipeline::decode(std::span<const float> latent) {
  Component& decoder = components_.vae_decoder;
  require(decoder);
  copy_floats(latent, decoder.input<float>());
  const std::int64_t begin = now_ns();
  decoder.run();
  times_.vae_decoder_ns = now_ns() - begin;
}

void Pipeline::require_finite(const Task& task, const Item& item) {
  if (is_finite(components_.vae_decoder.output())) return;
  const std::string where = "task " + task.name() + ", item " + item.name;
  std::string stage = "the VAE decoder";
  for (std::size_t step = task.steps(); step-- > 0;) {
    if (!is_finite(sampler_.eps(step))) stage = "the U-Net in step " + std::to_string(step);
  }
  if (!is_finite(latent_)) stage = "the VAE encoder";
  for (const Encoded& encoded : encoded_) {
    if (!is_finite(encoded.prompt) || (task.guidance() != 1.0 && !is_finite(encoded.negative))) stage = "the text encoder";
  }
  throw RunError(where, "the image is not finite; the first NaN or infinity came from " + stage);
}

}  // namespace quadbench
