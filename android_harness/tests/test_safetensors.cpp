#include <doctest/doctest.h>

#include <cstring>

#include "adapter.hpp"
#include "safetensors.hpp"
#include "scratch.hpp"

using namespace quadbench;

static std::string file_of(const std::string& header, const std::string& data) {
  const std::uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

static const std::string kHeader = R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";

static std::string data_of(float first, float second) {
  const float values[] = {first, second};
  return std::string(reinterpret_cast<const char*>(values), sizeof values);
}

TEST_CASE("a tensor is read by its name, type and shape") {
  const Scratch scratch;
  const SafeTensors file(scratch.write("x", file_of(kHeader, data_of(1.5f, -2.0f))));
  CHECK(file.read_floats("a", {1, 2}) == std::vector<float>{1.5f, -2.0f});
}

TEST_CASE("a wrong name, shape or type is named with what was expected") {
  const Scratch scratch;
  const SafeTensors file(scratch.write("x", file_of(kHeader, data_of(0, 0))));
  CHECK(has(input_error([&] { file.read_floats("b", {1, 2}); }), "tensor 'b' is not in"));
  CHECK(has(input_error([&] { file.read_floats("a", {2, 1}); }), "is F32 (1, 2), expected F32 (2, 1)"));
  CHECK(has(input_error([&] { file.require({.name = "a", .dtype = DType::kInt16, .shape = {1, 2}}); }), "expected I16 (1, 2)"));
}

TEST_CASE("a damaged file is refused when it is opened") {
  const Scratch scratch;
  const auto error = [&](const std::string& content) { return input_error([&] { SafeTensors(scratch.write("x", content)); }); };
  CHECK(has(error("1234"), "too short"));
  CHECK(has(error(std::string(8, '\xff') + "{}"), "is incomplete or not a safetensors file"));
  CHECK(has(error(file_of(kHeader, data_of(0, 0).substr(0, 4))), "the file is cut off"));
  CHECK(has(error(file_of(kHeader, data_of(0, 0) + "x")), "its header and tensors need"));
  CHECK(has(error(file_of("{", "")), "not JSON"));
  CHECK(has(error(file_of(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", "1234")), "expected a known type"));
  CHECK(has(error(file_of(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,4]}})", "1234")), "do not span the 12 bytes"));
  CHECK(has(error(file_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234")), "expected an integer from 0"));
  CHECK(has(error(file_of(R"({"a":{"dtype":"F32","shape":[2147483647,2147483647,2147483647],"data_offsets":[0,4]}})", "1234")),
            "a shape that fits the file"));
  CHECK(has(input_error([&] { SafeTensors(scratch.path("absent")); }), "No such file"));
}

static const TensorInfo kDown{.name = "lora.s.down", .dtype = DType::kInt8, .shape = {3, 2}};
static const TensorInfo kUp{.name = "lora.s.up", .dtype = DType::kInt8, .shape = {4, 3}};

// A file of one INT8 tensor after the other.
static std::string adapter_of(const std::vector<std::pair<std::string, Shape>>& tensors) {
  std::string header = "{", data;
  for (const auto& [name, shape] : tensors) {
    std::string sizes;
    for (const std::int64_t size : shape) sizes += (sizes.empty() ? "" : ",") + std::to_string(size);
    const std::size_t begin = data.size();
    data.append(elements_of(shape), 'x');
    header += (header.size() > 1 ? ",\"" : "\"") + name + R"(":{"dtype":"I8","shape":[)" + sizes + R"(],"data_offsets":[)" +
              std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
  return file_of(header + "}", data);
}

TEST_CASE("an adapter may have any rank up to the graph's at a site, and lack others") {
  const Scratch scratch;
  const TensorInfo other_down{.name = "lora.t.down", .dtype = DType::kInt8, .shape = {3, 2}};
  const TensorInfo other_up{.name = "lora.t.up", .dtype = DType::kInt8, .shape = {4, 3}};
  const auto error = [&](const std::vector<std::pair<std::string, Shape>>& tensors) {
    const auto path = scratch.write("x", adapter_of(tensors));
    return input_error([&] { check_adapter(path, {kDown, kUp, other_down, other_up}, std::nullopt); });
  };
  CHECK(error({{"lora.s.down", {3, 2}}, {"lora.s.up", {4, 3}}}) == "no InputError");
  CHECK(error({{"lora.s.down", {1, 2}}, {"lora.s.up", {4, 1}}}) == "no InputError");
  CHECK(has(error({{"lora.s.down", {4, 2}}, {"lora.s.up", {4, 4}}}), "has rank 4, expected 1 to 3"));
  CHECK(has(error({{"lora.s.down", {0, 2}}, {"lora.s.up", {4, 0}}}), "has rank 0, expected 1 to 3"));
  CHECK(has(error({{"lora.s.down", {2, 2}}, {"lora.s.up", {4, 3}}}), "has ranks 2 and 3 in the two tensors of 'lora.s'"));
  CHECK(has(error({{"lora.s.down", {2, 2}}}), "has one tensor of 'lora.s', expected down and up"));
  CHECK(has(error({{"lora.s.down", {2, 2}}, {"lora.t.up", {4, 2}}}), "has one tensor of 'lora.s'"));
  CHECK(has(error({{"lora.s.down", {2, 1}}, {"lora.s.up", {4, 2}}}), "is I8 (2, 1), expected I8 (2, 2)"));
  CHECK(has(error({{"lora.s.down", {2, 2, 1, 1}}, {"lora.s.up", {4, 2}}}), "is I8 (2, 2, 1, 1), expected I8 (3, 2)"));
  CHECK(has(error({}), "has no tensors"));
}

TEST_CASE("an adapter has no tensor but the graph's inputs") {
  const Scratch scratch;
  const auto path = scratch.write("x", adapter_of({{"lora.s.down", {3, 2}}, {"lora.s.up", {4, 3}}, {"a", {1}}}));
  CHECK(has(input_error([&] { check_adapter(path, {kDown, kUp}, std::nullopt); }), "has a tensor 'a' that is not an input of the graph"));
}

TEST_CASE("an adapter must be made for the base and profile of the plan") {
  const Scratch scratch;
  const BaseDigests base{.graph = std::string(64, '1'), .profile = std::string(64, '2')};
  const auto error = [&](const std::string& graph, const std::string& profile) {
    const std::string metadata = R"({"__metadata__":{"base_graph":")" + graph + R"(","base_profile":")" + profile + R"("},)";
    const std::string rest = R"("lora.s.down":{"dtype":"I8","shape":[1,2],"data_offsets":[0,2]},)"
                             R"("lora.s.up":{"dtype":"I8","shape":[4,1],"data_offsets":[2,6]}})";
    const auto path = scratch.write("x", file_of(metadata + rest, "123456"));
    return input_error([&] { check_adapter(path, {kDown, kUp}, base); });
  };
  CHECK(error(base.graph, base.profile) == "no InputError");
  CHECK(has(error(std::string(64, '3'), base.profile), "made for another base or profile: its metadata has base_graph 3333"));
  CHECK(has(error(base.graph, ""), "its metadata has base_profile , expected 2222"));
  const auto silent = scratch.write("y", file_of(kHeader, data_of(0, 0)));
  CHECK(has(input_error([&] { check_adapter(silent, {kDown, kUp}, base); }), "its metadata has no base_graph, expected 1111"));
}
