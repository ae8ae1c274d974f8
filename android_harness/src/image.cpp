#include "image.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

#include <stb_image.h>
#include <stb_image_write.h>

#include "errors.hpp"
#include "mapped_file.hpp"

namespace quadbench {
namespace {

struct FreePixels {
  void operator()(stbi_uc* data) const { stbi_image_free(data); }
};

std::string describe(int height, int width, int channels, bool is_16_bit) {
  return std::to_string(width) + "x" + std::to_string(height) + " with " + std::to_string(channels) + " channels of " +
         (is_16_bit ? "16" : "8") + " bits";
}

void append_bytes(void* target, void* data, int size) {
  auto& bytes = *static_cast<std::vector<std::byte>*>(target);
  const auto* begin = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
}

// torch: floor(index * float(in) / out), aten/src/ATen/native/UpSample.h
std::size_t nearest(int index, int in, int out) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  return static_cast<std::size_t>(std::min(static_cast<int>(std::floor(static_cast<float>(index) * scale)), in - 1));
}

}  // namespace

Pixels read_png(const std::filesystem::path& path, int height, int width, int channels) {
  const MappedFile file(path);
  const auto* bytes = reinterpret_cast<const stbi_uc*>(file.bytes().data());
  const int size = static_cast<int>(std::min<std::size_t>(file.bytes().size(), INT32_MAX));
  int found_width = 0, found_height = 0, found_channels = 0;
  if (stbi_info_from_memory(bytes, size, &found_width, &found_height, &found_channels) == 0) {
    throw InputError(path.string(), "'" + path.string() + "' is not a PNG file: " + stbi_failure_reason());
  }
  const bool is_16_bit = stbi_is_16_bit_from_memory(bytes, size) != 0;
  if (found_width != width || found_height != height || found_channels != channels || is_16_bit) {
    throw InputError(path.string(), "'" + path.string() + "' is " +
                                        describe(found_height, found_width, found_channels, is_16_bit) + ", expected " +
                                        describe(height, width, channels, false));
  }
  const std::unique_ptr<stbi_uc, FreePixels> data(
      stbi_load_from_memory(bytes, size, &found_width, &found_height, &found_channels, channels));
  if (!data) throw InputError(path.string(), "'" + path.string() + "' cannot be decoded: " + stbi_failure_reason());
  const auto pixels = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * static_cast<std::size_t>(channels);
  return {.height = height, .width = width, .channels = channels, .data = {data.get(), data.get() + pixels}};
}

std::vector<std::byte> encode_png(const Pixels& pixels) {
  std::vector<std::byte> bytes;
  if (stbi_write_png_to_func(append_bytes, &bytes, pixels.width, pixels.height, pixels.channels, pixels.data.data(), 0) == 0) {
    throw RunError("image", "PNG encoding failed");
  }
  return bytes;
}

void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  std::filesystem::path temporary = path;
  temporary += ".part";
  {
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) throw RunError(path.string(), "cannot write '" + temporary.string() + "': " + std::strerror(errno));
  }
  std::filesystem::rename(temporary, path, error);
  if (error) throw RunError(path.string(), "cannot rename '" + temporary.string() + "': " + error.message());
}

void to_floats(const Pixels& pixels, std::span<float> planes) {
  const std::size_t plane = pixels.data.size() / 3;
  for (std::size_t i = 0; i < plane; ++i) {
    for (std::size_t c = 0; c < 3; ++c) planes[c * plane + i] = static_cast<float>(pixels.data[3 * i + c]) / 127.5f - 1.0f;
  }
}

void to_pixels(std::span<const float> planes, Pixels& pixels) {
  const std::size_t plane = planes.size() / 3;
  for (std::size_t i = 0; i < plane; ++i) {
    for (std::size_t c = 0; c < 3; ++c) {
      const float unit = std::clamp((planes[c * plane + i] + 1.0f) / 2.0f, 0.0f, 1.0f);
      pixels.data[3 * i + c] = static_cast<std::uint8_t>(std::nearbyint(unit * 255.0f));
    }
  }
}

std::vector<float> mask_at(const Pixels& mask, int height, int width) {
  constexpr std::uint8_t kHalf = 128;  // the first 8-bit value that is >= 0.5 of 255
  std::vector<float> values;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const std::size_t row = nearest(y, mask.height, height);
      const std::size_t column = nearest(x, mask.width, width);
      values.push_back(mask.data[row * static_cast<std::size_t>(mask.width) + column] >= kHalf ? 1.0f : 0.0f);
    }
  }
  return values;
}

void composite(const Pixels& blend, const Pixels& input, Pixels& picture) {
  constexpr unsigned kWhole = 255;  // odd, so that no quotient lies halfway between two integers
  for (std::size_t k = 0; k < picture.data.size(); ++k) {
    const unsigned share = blend.data[k / 3];
    picture.data[k] = static_cast<std::uint8_t>((share * picture.data[k] + (kWhole - share) * input.data[k] + kWhole / 2) / kWhole);
  }
}

}  // namespace quadbench
