#include <doctest/doctest.h>

#include "image.hpp"
#include "scratch.hpp"

using namespace quadbench;

TEST_CASE("an image survives PNG") {
  const Scratch scratch;
  const Pixels pixels{.height = 1, .width = 2, .channels = 3, .data = {0, 127, 255, 1, 2, 3}};
  write_file(scratch.path("a/b.png"), encode_png(pixels));
  CHECK(read_png(scratch.path("a/b.png"), 1, 2, 3).data == pixels.data);
  CHECK(!std::filesystem::exists(scratch.path("a/b.png.part")));
}

TEST_CASE("an image of another size or kind is refused with both") {
  const Scratch scratch;
  write_file(scratch.path("x.png"), encode_png(Pixels{.height = 1, .width = 2, .channels = 1, .data = {0, 255}}));
  CHECK(has(input_error([&] { read_png(scratch.path("x.png"), 2, 2, 3); }),
            "is 2x1 with 1 channels of 8 bits, expected 2x2 with 3 channels of 8 bits"));
  CHECK(has(input_error([&] { read_png(scratch.write("y", "text"), 2, 2, 3); }), "is not a PNG file"));
}

TEST_CASE("pixels become planes in [-1, 1] and come back") {
  Pixels pixels{.height = 1, .width = 2, .channels = 3, .data = {0, 255, 51, 10, 20, 30}};
  std::vector<float> planes(6);
  to_floats(pixels, planes);
  CHECK(planes[0] == -1.0f);
  CHECK(planes[2] == 1.0f);
  CHECK(planes[4] == doctest::Approx(-0.6));
  const auto before = pixels.data;
  to_pixels(planes, pixels);
  CHECK(pixels.data == before);
}

TEST_CASE("pixels are clipped and rounded") {
  Pixels pixels{.height = 1, .width = 1, .channels = 3, .data = {0, 0, 0}};
  to_pixels(std::vector<float>{-3.0f, 3.0f, 0.0f}, pixels);
  CHECK(pixels.data == std::vector<std::uint8_t>{0, 255, 128});  // 127.5 to even
}

// Compared with torch.nn.functional.interpolate(mode="nearest").
TEST_CASE("a mask is binarized, then shrunk by nearest neighbour") {
  const Pixels even{.height = 2, .width = 4, .channels = 1, .data = {255, 0, 128, 0, 0, 0, 0, 0}};
  CHECK(mask_at(even, 1, 2) == std::vector<float>{1.0f, 1.0f});
  const Pixels odd{.height = 1, .width = 5, .channels = 1, .data = {0, 255, 127, 255, 0}};
  CHECK(mask_at(odd, 1, 3) == std::vector<float>{0.0f, 1.0f, 1.0f});  // columns 0, 1, 3
}

TEST_CASE("outside the blend mask a composited picture is its input, inside it what was decoded, between them both by share") {
  const Pixels blend{.height = 1, .width = 3, .channels = 1, .data = {0, 85, 255}};
  const Pixels input{.height = 1, .width = 3, .channels = 3, .data = {10, 20, 30, 10, 20, 30, 10, 20, 30}};
  Pixels picture{.height = 1, .width = 3, .channels = 3, .data = {200, 0, 255, 200, 0, 255, 200, 0, 255}};
  composite(blend, input, picture);
  CHECK(picture.data == std::vector<std::uint8_t>{10, 20, 30, 73, 13, 105, 200, 0, 255});
}
