#include <doctest/doctest.h>

#include "plan.hpp"
#include "scratch.hpp"

using namespace quadbench;

static const std::string kPlan = R"({
  "schema_version": 3, "root": "/r", "variant": "shared",
  "runtime": {"library": "lib.so", "intra_op_threads": 2},
  "components": {"encoders": {"text_encoder": {"path": "t"}}, "vae_encoder": {"path": "e"}, "vae_decoder": {"path": "/abs/d"}},
  "unets": {"base": {"path": "u"}},
  "adapters": {"restyle": {"path": "a"}},
  "tasks": {"restyle": {"kind": "image-to-image", "unet": "base", "adapter": "restyle", "guidance": 3.0, "table": "t.json",
    "tensors": "t.st", "items": [{"name": "000", "image": "i.png", "mask": null, "blend": null, "tokens": {"input_ids": [1]}, "negative_tokens": {"input_ids": [2]}}]}},
  "sequence": [{"task": "restyle", "warmup": 2, "iterations": 10}],
  "images": null})";

static std::string error_with(const std::string& from, const std::string& to) {
  std::string text = kPlan;
  text.replace(text.find(from), from.size(), to);
  return input_error([&] { parse_plan(text); });
}

TEST_CASE("a plan is read, paths against its root") {
  const Plan plan = parse_plan(kPlan);
  CHECK(plan.variant == Variant::kShared);
  CHECK(plan.verify);
  CHECK(plan.runtime.optimization == Optimization::kAll);
  CHECK(plan.runtime.arena == Arena::kNone);
  CHECK(plan.runtime.engine == Engine::kOnnxRuntime);
  CHECK(plan.runtime.adapter_cache_bytes == std::size_t{512} << 20);
  CHECK_FALSE(plan.runtime.memory_budget_bytes);
  CHECK(plan.components.encoders.at("text_encoder").path == "/r/t");
  CHECK(plan.components.vae_decoder.path == "/abs/d");
  CHECK(plan.tasks.at("restyle").items[0].image == "/r/i.png");
  CHECK(plan.tasks.at("restyle").adapter == "restyle");
  CHECK(plan.sequence[0].iterations == 10);
  CHECK(!plan.images);
  CHECK(!plan.base);
}

TEST_CASE("an execution provider has a name and options that are text") {
  const std::string threads = "\"intra_op_threads\": 2";
  std::string text = kPlan;
  text.replace(text.find(threads), threads.size(),
               threads + R"(, "execution_provider": {"name": "XNNPACK", "options": {"intra_op_num_threads": "2"}})");
  CHECK(!parse_plan(kPlan).runtime.execution_provider);
  const ProviderPlan provider = parse_plan(text).runtime.execution_provider.value();
  CHECK(provider.name == "XNNPACK");
  CHECK(provider.options.at("intra_op_num_threads") == "2");
  CHECK(has(error_with(threads, threads + R"(, "execution_provider": {"options": {}})"), "execution_provider.name: missing"));
  CHECK(has(error_with(threads, threads + R"(, "execution_provider": {"name": "X", "options": {"n": 2}})"),
            "runtime.execution_provider.options.n: found 2, expected a string"));
}

TEST_CASE("graphs run on an NPU by a dispatch library or a plugin, and not by a provider of the runtime's own") {
  RuntimePlan runtime;
  runtime.execution_provider = ProviderPlan{.name = "XNNPACK", .options = {}, .library = std::nullopt};
  CHECK_FALSE(runs_on_npu(runtime));
  runtime.execution_provider->library = "/kit/plugin.so";
  CHECK(runs_on_npu(runtime));
  runtime.execution_provider.reset();
  CHECK_FALSE(runs_on_npu(runtime));
  runtime.dispatch = "/kit/dispatch.so";
  CHECK(runs_on_npu(runtime));
}

TEST_CASE("a wrong field is named with what was found and expected") {
  CHECK(has(error_with("\"schema_version\": 3", "\"schema_version\": 1"),
            "schema_version: found 1, expected an integer from 2 to 3"));
  CHECK(has(error_with("\"shared\"", "\"both\""), 
            "variant: found \"both\", expected one of shared, per-graph, resident, context-shared, patched, merged-at-load, float"));
  CHECK(has(error_with("\"intra_op_threads\": 2", "\"intra_op_threads\": 0"), "runtime.intra_op_threads: found 0"));
  CHECK(has(error_with("\"intra_op_threads\": 2", "\"threads\": 2"), "runtime.threads: unknown key; known: library"));
  CHECK(has(error_with("{\"path\": \"t\"}", "\"t\""), "components.encoders.text_encoder: found \"t\", expected an object"));
  CHECK(has(error_with("{\"path\": \"u\"}", "{\"path\": \"u\", \"sha256\": \"12\"}"),
            "unets.base.sha256: found \"12\", expected 64"));
  CHECK(has(error_with("\"guidance\": 3.0", "\"guidance\": \"x\""),
            "tasks.restyle.guidance: found \"x\", expected a finite number"));
  CHECK(has(error_with("\"iterations\": 10", "\"iterations\": 0"), "sequence[0].iterations: found 0"));
  CHECK(has(error_with("\"images\": null", "\"images\": \"\""), "images: found \"\", expected a string that is not empty"));
  CHECK(has(error_with("\"sequence\"", "\"order\""), "order: unknown key"));
  CHECK(has(input_error([] { parse_plan("{"); }), "plan: not JSON"));
  CHECK(has(input_error([] { parse_plan("[]"); }), "document: found an array of 0, expected an object"));
}

TEST_CASE("names that lead nowhere are refused with those that are known") {
  CHECK(has(error_with("\"unet\": \"base\"", "\"unet\": \"bass\""), "tasks.restyle.unet: unknown U-Net 'bass'; known: base"));
  CHECK(has(error_with("\"adapter\": \"restyle\"", "\"adapter\": \"x\""),
            "tasks.restyle.adapter: unknown adapter 'x'; known: restyle"));
  CHECK(has(error_with("\"task\": \"restyle\"", "\"task\": \"x\""), "sequence[0].task: unknown task 'x'; known: restyle"));
  CHECK(has(error_with("\"name\": \"000\"", "\"name\": \"../x\""), "expected one without slashes"));
}

TEST_CASE("a mix is adapters with factors, and every adapter is one by itself") {
  const std::string adapters = R"("adapters": {"restyle": {"path": "a"}})";
  const auto with = [&](const std::string& mixes) { return adapters + ", \"mixes\": " + mixes; };
  std::string text = kPlan;
  text.replace(text.find(adapters), adapters.size(), with(R"({"restyle:0.5": {"restyle": 0.5}})"));
  const Plan plan = parse_plan(text);
  CHECK(plan.mixes.at("restyle:0.5") == AdapterMix{{"restyle", 0.5}});
  CHECK(plan.mixes.at("restyle") == AdapterMix{{"restyle", 1.0}});
  CHECK(has(error_with(adapters, with(R"({"m": {"restyle": 1.5}})")), "mixes.m.restyle: found 1.5, expected a number from -1 to 1"));
  CHECK(has(error_with(adapters, with(R"({"m": {"lcm": 1}})")), "mixes.m.lcm: found 1, expected a factor of one of the plan's"));
  CHECK(has(error_with(adapters, with(R"({"m": {}})")), "mixes.m: found an object, expected at least one adapter"));
}

TEST_CASE("a task has just the files that its kind takes") {
  CHECK(has(error_with("\"image\": \"i.png\"", "\"image\": null"), "items[0].image: missing; the task's kind needs it"));
  CHECK(has(error_with("\"mask\": null", "\"mask\": \"m.png\""), "items[0].mask: found \"m.png\", expected null"));
  CHECK(has(error_with("\"blend\": null", "\"blend\": \"b.png\""), "items[0].blend: found \"b.png\", expected null"));
  CHECK(has(error_with("\"vae_encoder\": {\"path\": \"e\"}, ", ""), "components.vae_encoder: missing"));
}

TEST_CASE("adapters and U-Nets fit the variant") {
  CHECK(has(error_with("\"shared\"", "\"per-graph\""), "adapters: found an object, expected no adapters for variant per-graph"));
  CHECK(has(error_with("{\"path\": \"u\"}", "{\"path\": \"u\"}, \"b\": {\"path\": \"v\"}"), "unets: found 2, expected one"));
}

TEST_CASE("adapters are merged at load by a graph, into weights of the plan") {
  const std::string shared = R"("variant": "shared")", merged = R"("variant": "merged-at-load")";
  const std::string merge = R"(, "merge": {"graph": {"path": "m"}, "weights": {"path": "w"}})";
  std::string text = kPlan;
  text.replace(text.find(shared), shared.size(), merged + merge);
  CHECK(parse_plan(text).merge->weights.path == "/r/w");
  CHECK(has(error_with(shared, merged), "merge: missing; required for variant merged-at-load"));
  CHECK(has(error_with(shared, shared + merge), "merge: found an object; required for variant merged-at-load"));
}

TEST_CASE("patches make U-Nets of the plan, and of variant patched alone") {
  const std::string from = R"("adapters": {"restyle": {"path": "a"}})", to = R"("patches": {"base": {"path": "p"}}, "adapters": {})";
  std::string text = kPlan;
  text.replace(text.find(from), from.size(), to);
  text.replace(text.find(R"("adapter": "restyle")"), 20, R"("adapter": null)");
  const std::string shared = text;
  text.replace(text.find(R"("shared")"), 8, R"("patched")");
  CHECK(parse_plan(text).patches.at("base").path == "/r/p");
  CHECK(has(input_error([&] { parse_plan(shared); }), "patches: found an object, expected patches of U-Nets of variant patched"));
  text.replace(text.find(R"({"base": {"path": "p"}})"), 8, R"({"bass": )");
  CHECK(has(input_error([&] { parse_plan(text); }), "patches: found an object, expected patches of U-Nets of variant patched"));
}

TEST_CASE("a plan of before encoders had names has one, of one input") {
  std::string text = kPlan;
  const auto put = [&](const std::string& from, const std::string& to) { text.replace(text.find(from), from.size(), to); };
  put("\"schema_version\": 3", "\"schema_version\": 2");
  CHECK(has(input_error([&] { parse_plan(text); }), "components.encoders: unknown key"));
  put(R"("encoders": {"text_encoder": {"path": "t"}})", R"("text_encoder": {"path": "t"})");
  CHECK(has(input_error([&] { parse_plan(text); }), "items[0].negative_tokens: unknown key"));
  put(R"("tokens": {"input_ids": [1]}, "negative_tokens": {"input_ids": [2]})", R"("input_ids": [1], "negative_input_ids": [2])");
  const Plan plan = parse_plan(text);
  CHECK(plan.components.encoders.at("text_encoder").path == "/r/t");
  CHECK(plan.tasks.at("restyle").items[0].tokens == TokenIds{{"input_ids", {1}}});
  CHECK(plan.tasks.at("restyle").items[0].negative_tokens == TokenIds{{"input_ids", {2}}});
}

TEST_CASE("tokens have the names of encoders' inputs, and a negative prompt may be absent") {
  std::string text = kPlan;
  const std::string negative = R"("negative_tokens": {"input_ids": [2]})";
  CHECK(parse_plan(text).tasks.at("restyle").items[0].negative_tokens == TokenIds{{"input_ids", {2}}});
  text.replace(text.find(negative), negative.size(), R"("negative_tokens": null)");
  CHECK_FALSE(parse_plan(text).tasks.at("restyle").items[0].negative_tokens);
  CHECK(has(error_with(R"({"input_ids": [1]})", R"({"input_ids": []})"), "items[0].tokens.input_ids: found an array of 0"));
  CHECK(has(error_with(R"({"input_ids": [1]})", R"([1])"), "items[0].tokens: found an array of 1, expected an object"));
}

TEST_CASE("a base is two digests") {
  const std::string digest(64, 'a');
  const std::string from = "\"images\": null";
  std::string text = kPlan;
  text.replace(text.find(from), from.size(), from + R"(, "base": {"graph": ")" + digest + R"(", "profile": ")" + digest + "\"}");
  CHECK(parse_plan(text).base->profile == digest);
  CHECK(has(error_with(from, from + R"(, "base": {"graph": "1"})"), "base.graph: found \"1\", expected 64"));
  CHECK(has(error_with(from, from + R"(, "base": {"graph": ")" + digest + "\"}"), "base.profile: missing"));
}

TEST_CASE("a file whose sha256 is another is refused") {
  const Scratch scratch;
  const auto path = scratch.write("a", "abc");
  Plan plan = parse_plan(kPlan);
  plan.components = {.encoders = {{"text_encoder", {path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}},
                     .vae_encoder = std::nullopt,
                     .vae_decoder = {path, std::string(64, '0')}};
  CHECK(has(input_error([&] { verify_files(plan); }), "has sha256 ba7816bf"));
  plan.verify = false;
  CHECK(input_error([&] { verify_files(plan); }) == "no InputError");
}
