// Where the U-Net's conditions come from: an encoder, the task's tensors with a row for each step or one, the items' tensors.
#include <doctest/doctest.h>

#include <numeric>

#include "scratch.hpp"
#include "task.hpp"

using namespace quadbench;

static TensorInfo floats(const std::string& name, const Shape& shape) {
  return {.name = name, .dtype = DType::kFloat32, .shape = shape};
}

static const std::string kTable = R"({"schema_version": 1, "scheme": "ed", "timesteps": [9, 5], "fit_error": null,
  "start": {"latent": 0, "noise": 1}, "steps": [
    {"input_scale": 1, "x_start": 0, "x": 1, "eps": [1], "noise": 0, "known": null},
    {"input_scale": 1, "x_start": 0, "x": 1, "eps": [0, 1], "noise": 0, "known": null}]})";

// Tensors whose elements count up from 0.
static std::string file_of(const std::vector<TensorInfo>& tensors) {
  std::string header, data;
  for (const TensorInfo& info : tensors) {
    std::vector<float> values(elements_of(info.shape));
    std::iota(values.begin(), values.end(), 0.0f);
    std::string shape = to_string(info.shape);
    shape = "[" + shape.substr(1, shape.size() - 2) + "]";
    header += (header.empty() ? "{\"" : ", \"") + info.name + R"(": {"dtype": "F32", "shape": )" + shape + R"(, "data_offsets": [)" +
              std::to_string(data.size()) + ", " + std::to_string(data.size() + info.bytes()) + "]}";
    data += std::string(reinterpret_cast<const char*>(values.data()), info.bytes());
  }
  header += "}";
  const std::uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

// A task of two steps with the tensors beside its noise, and an encoder of two inputs and two outputs.
struct Scene {
  explicit Scene(const std::vector<TensorInfo>& tensors, double guidance = 1.0) {
    std::vector<TensorInfo> all{floats("noise.000", {3, 1, 1, 1})};
    all.insert(all.end(), tensors.begin(), tensors.end());
    plan.unet = "base";
    plan.guidance = guidance;
    plan.table = scratch.write("table.json", kTable);
    plan.tensors = scratch.write("tensors", file_of(all));
    plan.items = {{.name = "000",
                   .image = std::nullopt,
                   .mask = std::nullopt,
                   .blend = std::nullopt,
                   .tokens = {{"ids", {1, 2}}, {"ids_2", {3, 4, 5}}},
                   .negative_tokens = std::nullopt}};
  }

  Task task() const { return Task("it", plan, dimensions); }
  std::string refusal(const std::vector<TensorInfo>& conditions) const {
    return input_error([&] { task().bind(conditions); });
  }

  Scratch scratch;
  TaskPlan plan;
  Dimensions dimensions{.image = {1, 3, 1, 1},
                        .latent = {1, 1, 1, 1},
                        .tokens = {{.name = "ids", .dtype = DType::kInt32, .shape = {1, 2}},
                                   {.name = "ids_2", .dtype = DType::kInt32, .shape = {1, 3}}},
                        .encoded = {floats("states", {1, 2, 4}), floats("pooled", {1, 4})}};
};

TEST_CASE("a condition is an encoder's output of its name, whatever else has the name") {
  const Scene scene({floats("pooled", {1, 4})});
  Task task = scene.task();
  task.bind({floats("pooled", {1, 4})});
  CHECK(task.conditions()[0].source == Condition::Source::kPrompt);
  CHECK(task.conditions()[0].encoded == 1);
}

TEST_CASE("a task's tensor has a row for each step, or one row for all") {
  const Scene scene({floats("time", {2, 3}), floats("sizes", {1, 3})});
  Task task = scene.task();
  task.bind({floats("time", {1, 3}), floats("sizes", {1, 3})});
  CHECK(task.conditions()[0].source == Condition::Source::kTask);
  CHECK(task.conditions()[0].row(0)[2] == 2.0f);
  CHECK(task.conditions()[0].row(1)[2] == 5.0f);
  CHECK(task.conditions()[1].row(0)[2] == 2.0f);
  CHECK(task.conditions()[1].row(1)[2] == 2.0f);
}

TEST_CASE("an item's tensor has the prompt's row, and with guidance then the negative prompt's") {
  const Scene plain({floats("text.000", {1, 2})});
  Task task = plain.task();
  task.bind({floats("text", {1, 2})});
  CHECK(task.conditions()[0].source == Condition::Source::kItem);
  CHECK(task.load(0).conditions.at(0) == std::vector<float>{0, 1});
  const Scene guided({floats("text.000", {2, 2})}, 3.0);
  Task again = guided.task();
  again.bind({floats("text", {1, 2})});
  CHECK(again.load(0).conditions.at(0) == std::vector<float>{0, 1, 2, 3});
  CHECK(has(plain.refusal({floats("text", {1, 3})}), "expected F32 (1, 3)"));
  CHECK(has(Scene({floats("text.000", {1, 2})}, 3.0).refusal({floats("text", {1, 2})}), "expected F32 (2, 2)"));
}

TEST_CASE("a condition that nothing gives is refused with what there is") {
  const std::string error = Scene({floats("time", {2, 3})}).refusal({floats("sizes", {1, 3})});
  CHECK(has(error, "tasks.it: nothing gives 'sizes' float32 (1, 3) to U-Net 'base': encoders give states, pooled"));
  CHECK(has(error, "has neither 'sizes' nor 'sizes.000'"));
}

TEST_CASE("a condition of another shape is refused with both shapes") {
  const Scene scene({floats("time", {3, 3})});
  CHECK(has(scene.refusal({floats("states", {1, 2, 5})}), "an encoder gives 'states' as float32 (1, 2, 4), U-Net 'base' takes"));
  CHECK(has(scene.refusal({floats("time", {1, 3})}), "has shape (3, 3), expected (2, 3) for each step, or (1, 3)"));
}

TEST_CASE("an item has tokens for each input of the encoders, of its length, and for no other") {
  Scene scene({});
  const auto refusal_of = [&](const TokenIds& tokens) {
    scene.plan.items[0].tokens = tokens;
    return input_error([&] { scene.task(); });
  };
  CHECK(has(refusal_of({{"ids", {1, 2}}}), "tasks.it item 000 tokens: has no token ids for the encoder's input 'ids_2'"));
  CHECK(has(refusal_of({{"ids", {1}}, {"ids_2", {3, 4, 5}}}), "found 1 token ids of 'ids', expected 2"));
  CHECK(has(refusal_of({{"ids", {1, 2}}, {"ids_2", {3, 4, 5}}, {"x", {1}}}), "no encoder has an input 'x'"));
  scene.plan.items[0].negative_tokens = TokenIds{{"ids", {1, 2}}};
  CHECK(has(refusal_of({{"ids", {1, 2}}, {"ids_2", {3, 4, 5}}}), "item 000 negative_tokens: has no token ids"));
}
