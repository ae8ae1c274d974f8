// Images: PNG <-> 8-bit pixels <-> planar floats in [-1, 1], masks at the latent's size, and compositing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace quadbench {

struct Pixels {
  int height = 0;
  int width = 0;
  int channels = 0;                // 3: RGB, 1: grey
  std::vector<std::uint8_t> data;  // (height, width, channels)
};

// Throws InputError unless it is an 8-bit PNG of this size and number of channels.
Pixels read_png(const std::filesystem::path& path, int height, int width, int channels);

std::vector<std::byte> encode_png(const Pixels& pixels);

// Complete or absent: written under a temporary name, then renamed. Throws RunError.
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);

// (H, W, 3) in 0..255 -> (3, H, W) in [-1, 1]
void to_floats(const Pixels& pixels, std::span<float> planes);

// (3, H, W) -> (H, W, 3): clip((x + 1) / 2, 0, 1) * 255, rounded half to even
void to_pixels(std::span<const float> planes, Pixels& pixels);

// Grey (H, W) -> (h, w): 1 where the pixel is >= 0.5, by nearest neighbour as torch.nn.functional.interpolate(mode="nearest").
std::vector<float> mask_at(const Pixels& mask, int height, int width);

// Overlay a decoded picture (H, W, 3) on its input: (blend * picture + (255 - blend) * input) / 255, rounded; `blend` is (H, W, 1).
void composite(const Pixels& blend, const Pixels& input, Pixels& picture);

}  // namespace quadbench
