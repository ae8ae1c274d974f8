#include <doctest/doctest.h>

#include "sampler.hpp"
#include "scratch.hpp"

using namespace quadbench;

static const Table kTable = {
    .start = {.latent = 2.0, .noise = 0.5},
    .steps = {
        {.input_scale = 0.5, .x_start = 0.0, .x = 1.0, .eps = {-1.0}, .noise = 0.25, .known = {.latent = 1.0, .noise = 0.5}},
        {.input_scale = 1.0, .x_start = 0.5, .x = 0.0, .eps = {2.0, 3.0}, .noise = 0.0, .known = {.latent = 1.0, .noise = 0.0}}}};

// One channel of two elements. x_0 = 2 z + 0.5 n_0.
static const std::vector<float> kLatent = {1.0f, -1.0f};
static const std::vector<float> kNoise = {4.0f, 2.0f, 8.0f, -8.0f, 0.0f, 0.0f};

static std::vector<float> run(const std::vector<float>& mask, std::vector<std::vector<float>>& seen) {
  Sampler sampler(2, 1, 2);
  std::vector<float> unet_input(2);
  const auto result = sampler.run(kTable, {.latent = kLatent, .noise = kNoise, .mask = mask}, unet_input,
                                  [&](std::size_t step, std::span<float> eps) {
                                    seen.push_back(unet_input);
                                    eps[0] = static_cast<float>(step) + 1.0f;
                                    eps[1] = -1.0f;
                                  });
  return {result.begin(), result.end()};
}

TEST_CASE("the loop computes what the table says") {
  // x_0 = {4, -1}; x_1 = x_0 - eps_0 + 0.25 n_1 = {4 - 1 + 2, -1 + 1 - 2} = {5, -2}
  // x_2 = 0.5 x_0 + 2 eps_0 + 3 eps_1 = {2 + 2 + 6, -0.5 - 2 - 3} = {10, -5.5}
  std::vector<std::vector<float>> seen;
  CHECK(run({}, seen) == std::vector<float>{10.0f, -5.5f});
  CHECK(seen == std::vector<std::vector<float>>{{2.0f, -0.5f}, {5.0f, -2.0f}});
}

TEST_CASE("outside the mask inpainting keeps what is known") {
  // Element 1: after step 0 known = z + 0.5 n_0 = -1 + 1 = 0, after step 1 known = z = -1.
  std::vector<std::vector<float>> seen;
  CHECK(run({1.0f, 0.0f}, seen) == std::vector<float>{10.0f, -1.0f});
  CHECK(seen[1] == std::vector<float>{5.0f, 0.0f});
}

TEST_CASE("a table is refused with the place of what is wrong") {
  const std::string good =
      R"({"schema_version":1,"scheme":"lcm","timesteps":[9],"fit_error":null,"start":{"latent":0,"noise":1},)"
      R"("steps":[{"input_scale":1,"x_start":0,"x":1,"eps":[1],"noise":0,"known":null}]})";
  const auto error = [&](const std::string& from, const std::string& to, bool inpaint) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return input_error([&] { parse_table(text, "t.json", inpaint); });
  };
  CHECK(parse_table(good, "t.json", false).steps.size() == 1);
  CHECK(has(error("[1]", "[1,2]", false), "t.json.steps[0].eps: found an array of 2, expected an array of 1"));
  CHECK(has(error("[9]", "[9,8]", false), "t.json.timesteps: found an array of 2, expected 1 time steps"));
  CHECK(has(error("[9]", "[9]", true), "t.json.steps[0].known: found null, expected an object"));
  CHECK(has(error("\"x\":1", "\"x\":\"1\"", false), "t.json.steps[0].x: found \"1\", expected a finite number"));
  CHECK(has(error("\"x\":1", "\"y\":1", false), "steps[0].y: unknown key; known: input_scale"));
}
