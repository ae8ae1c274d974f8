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
  CHECK(has(error(std::string(8, '\xff') + "{}"), "is cut off or no safetensors file"));
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

TEST_CASE("an adapter must hold just the graph's inputs") {
  const Scratch scratch;
  const auto path = scratch.write("x", file_of(kHeader, data_of(0, 0)));
  const TensorInfo a{.name = "a", .dtype = DType::kFloat32, .shape = {1, 2}};
  const TensorInfo b{.name = "b", .dtype = DType::kFloat32, .shape = {1, 2}};
  CHECK(input_error([&] { check_adapter(path, {a}, std::nullopt); }) == "no InputError");
  CHECK(has(input_error([&] { check_adapter(path, {a, b}, std::nullopt); }), "'b' is not in"));
  CHECK(has(input_error([&] { check_adapter(path, {}, std::nullopt); }), "has a tensor 'a' that is no input of the graph"));
}

TEST_CASE("an adapter must be made for the base and profile of the plan") {
  const Scratch scratch;
  const TensorInfo a{.name = "a", .dtype = DType::kFloat32, .shape = {1, 2}};
  const BaseDigests base{.graph = std::string(64, '1'), .profile = std::string(64, '2')};
  const auto error = [&](const std::string& graph, const std::string& profile) {
    const std::string metadata = R"({"__metadata__":{"base_graph":")" + graph + R"(","base_profile":")" + profile + R"("},)";
    const auto path = scratch.write("x", file_of(metadata + kHeader.substr(kHeader.find("\"a\"")), data_of(0, 0)));
    return input_error([&] { check_adapter(path, {a}, base); });
  };
  CHECK(error(base.graph, base.profile) == "no InputError");
  CHECK(has(error(std::string(64, '3'), base.profile), "made for another base or profile: it says base_graph 3333"));
  CHECK(has(error(base.graph, ""), "it says base_profile , expected 2222"));
  const auto silent = scratch.write("y", file_of(kHeader, data_of(0, 0)));
  CHECK(has(input_error([&] { check_adapter(silent, {a}, base); }), "it says no base_graph, expected 1111"));
}
