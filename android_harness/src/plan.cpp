#include "plan.hpp"

#include <cmath>
#include <set>
#include <utility>

#include "errors.hpp"
#include "fields.hpp"
#include "mapped_file.hpp"
#include "sha256.hpp"

namespace quadbench {
namespace {

using Root = std::filesystem::path;

constexpr std::pair<const char*, Variant> kVariants[] = {
    {"shared", Variant::kShared},   {"per-graph", Variant::kPerGraph}, {"resident", Variant::kResident},
    {"context-shared", Variant::kContextShared}, {"patched", Variant::kPatched},
    {"merged-at-load", Variant::kMergedAtLoad}, {"float", Variant::kFloat}};
constexpr std::pair<const char*, TaskKind> kTaskKinds[] = {
    {"text-to-image", TaskKind::kTextToImage}, {"image-to-image", TaskKind::kImageToImage}, {"inpaint", TaskKind::kInpaint}};
constexpr std::pair<const char*, Optimization> kOptimizations[] = {{"none", Optimization::kNone},
                                                                   {"basic", Optimization::kBasic},
                                                                   {"extended", Optimization::kExtended},
                                                                   {"all", Optimization::kAll}};

constexpr std::pair<const char*, Arena> kArenas[] = {
    {"none", Arena::kNone}, {"session", Arena::kSession}, {"shared", Arena::kShared}};
constexpr std::pair<const char*, Engine> kEngines[] = {{"onnxruntime", Engine::kOnnxRuntime}, {"litert", Engine::kLiteRt}};
constexpr std::pair<const char*, ThreadPool> kThreadPools[] = {{"shared", ThreadPool::kShared}, {"session", ThreadPool::kSession}};
constexpr std::pair<const char*, Preload> kPreloads[] = {
    {"none", Preload::kNone}, {"next", Preload::kNext}, {"all", Preload::kAll}};
constexpr std::int64_t kSchemaVersion = 3;
constexpr std::int64_t kOldestVersion = 2;  // with one text encoder, of one input
constexpr std::int64_t kMostBytes = std::int64_t{1} << 46;
constexpr std::int64_t kMostCores = 1024;

template <class Choice, std::size_t n>
Choice choice(const Field& field, const std::pair<const char*, Choice> (&choices)[n]) {
  const std::string found = field.text();
  std::vector<std::string> names;
  for (const auto& [name, value] : choices) {
    if (found == name) return value;
    names.emplace_back(name);
  }
  field.fail("one of " + joined(names));
}

template <class Value>
void require_known(const Field& field, const std::map<std::string, Value>& known, const std::string& what) {
  if (known.contains(field.text())) return;
  std::vector<std::string> names;
  for (const auto& entry : known) names.push_back(entry.first);
  throw InputError(field.place(), field.place() + ": unknown " + what + " '" + field.text() + "'; known: " + joined(names));
}

BaseDigests base_digests(const Field& field) {
  field.require_keys({"graph", "profile"});
  return {.graph = field.at("graph").sha256(), .profile = field.at("profile").sha256()};
}

// Names become parts of paths.
std::string checked_name(const std::string& name, const std::string& place) {
  if (name.empty() || name.front() == '.' || name.find_first_of("/\\") != std::string::npos) {
    throw InputError(place, place + ": found the name '" + name + "', expected one without slashes or a leading dot");
  }
  return name;
}

PlannedFile planned_file(const Field& field, const Root& root) {
  field.require_keys({"path", "sha256"});
  PlannedFile file{.path = root / field.at("path").text(), .sha256 = std::nullopt};
  if (const auto sha256 = field.find("sha256")) file.sha256 = sha256->sha256();
  return file;
}

std::map<std::string, PlannedFile> planned_files(const Field& field, const Root& root) {
  std::map<std::string, PlannedFile> files;
  for (const auto& [name, entry] : field.entries()) files.emplace(name, planned_file(entry, root));
  return files;
}

std::map<std::string, AdapterMix> mixes(const Field& field, const std::map<std::string, PlannedFile>& adapters) {
  std::map<std::string, AdapterMix> mixes;
  for (const auto& [name, parts] : field.entries()) {
    for (const auto& [adapter, factor] : parts.entries()) {
      if (!adapters.contains(adapter)) factor.fail("a factor of one of the plan's adapters");
      if (std::abs(factor.number()) > 1.0) factor.fail("a number from -1 to 1");
      mixes[name].emplace(adapter, factor.number());
    }
    if (!mixes.contains(name)) parts.fail("at least one adapter");
  }
  return mixes;
}

MergePlan merge_plan(const Field& field, const Root& root) {
  field.require_keys({"graph", "weights"});
  return {.graph = planned_file(field.at("graph"), root), .weights = planned_file(field.at("weights"), root)};
}

ProviderPlan provider_plan(const Field& field, const Root& root) {
  field.require_keys({"name", "options", "library"});
  ProviderPlan provider{.name = field.at("name").text(), .options = {}, .library = std::nullopt};
  if (const auto library = field.find("library")) provider.library = root / library->text();
  if (const auto options = field.find("options")) {
    for (const auto& [key, value] : options->entries()) provider.options.emplace(key, value.text());
  }
  return provider;
}

std::size_t byte_count(const Field& field) { return static_cast<std::size_t>(field.integer(1, kMostBytes)); }

RuntimePlan runtime_plan(const Field& field, const Root& root) {
  field.require_keys({"library", "engine", "dispatch", "intra_op_threads", "cores", "thread_pool", "arena", "optimization", "preload",
                      "adapter_cache_bytes", "memory_budget_bytes", "memory_period_ms", "execution_provider"});
  RuntimePlan runtime;
  if (const auto engine = field.find("engine")) runtime.engine = choice(*engine, kEngines);
  runtime.library = root / field.at("library").text();
  if (const auto dispatch = field.find("dispatch")) {
    if (runtime.engine != Engine::kLiteRt) dispatch->fail("none unless runtime.engine is litert");
    runtime.dispatch = root / dispatch->text();
  }
  runtime.intra_op_threads = static_cast<int>(field.at("intra_op_threads").integer(1, 1024));
  if (const auto level = field.find("optimization")) runtime.optimization = choice(*level, kOptimizations);
  if (const auto cores = field.find("cores")) {
    for (const Field& core : cores->items()) runtime.cores.push_back(static_cast<int>(core.integer(0, kMostCores - 1)));
  }
  if (const auto pool = field.find("thread_pool")) runtime.thread_pool = choice(*pool, kThreadPools);
  if (const auto arena = field.find("arena")) runtime.arena = choice(*arena, kArenas);
  if (const auto preload = field.find("preload")) runtime.preload = choice(*preload, kPreloads);
  if (const auto cache = field.find("adapter_cache_bytes")) runtime.adapter_cache_bytes = byte_count(*cache);
  if (const auto budget = field.find("memory_budget_bytes")) runtime.memory_budget_bytes = byte_count(*budget);
  if (const auto period = field.find("memory_period_ms")) {
    runtime.memory_period_ms = static_cast<int>(period->integer(0, 60'000));
  }
  if (const auto provider = field.find("execution_provider")) runtime.execution_provider = provider_plan(*provider, root);
  return runtime;
}

ComponentsPlan components_plan(const Field& field, std::int64_t version, const Root& root) {
  ComponentsPlan components;
  if (version == kOldestVersion) {
    field.require_keys({"text_encoder", "vae_encoder", "vae_decoder"});
    components.encoders.emplace("text_encoder", planned_file(field.at("text_encoder"), root));
  } else {
    field.require_keys({"encoders", "vae_encoder", "vae_decoder"});
    components.encoders = planned_files(field.at("encoders"), root);
  }
  components.vae_decoder = planned_file(field.at("vae_decoder"), root);
  if (const auto encoder = field.find("vae_encoder")) components.vae_encoder = planned_file(*encoder, root);
  return components;
}

std::vector<std::int32_t> token_ids(const Field& field) {
  std::vector<std::int32_t> ids;
  for (const Field& id : field.items()) ids.push_back(static_cast<std::int32_t>(id.integer(0, INT32_MAX)));
  if (ids.empty()) field.fail("an array of token ids");
  return ids;
}

TokenIds tokens_by_input(const Field& field) {
  TokenIds tokens;
  for (const auto& [name, ids] : field.entries()) tokens.emplace(name, token_ids(ids));
  return tokens;
}

void read_tokens(const Field& field, std::int64_t version, bool is_guided, ItemPlan& item) {
  if (version == kOldestVersion) {
    item.tokens.emplace("input_ids", token_ids(field.at("input_ids")));
    if (is_guided) item.negative_tokens = TokenIds{{"input_ids", token_ids(field.at("negative_input_ids"))}};
    return;
  }
  item.tokens = tokens_by_input(field.at("tokens"));
  const auto negative = field.find("negative_tokens");
  if (is_guided && negative) item.negative_tokens = tokens_by_input(*negative);
}

// A file that tasks of other kinds may not have.
std::optional<std::filesystem::path> allowed_file(const Field& item, const std::string& key, bool allowed, const Root& root) {
  const auto file = item.find(key);
  if (file && !allowed) file->fail("null for a task of this kind");
  if (!file) return std::nullopt;
  return root / file->text();
}

// A file that the task's kind asks for, and that no other kind may have.
std::optional<std::filesystem::path> item_file(const Field& item, const std::string& key, bool wanted, const Root& root) {
  const auto file = allowed_file(item, key, wanted, root);
  if (!file && wanted)
    throw InputError(item.place() + "." + key, item.place() + "." + key + ": missing; the task's kind needs it");
  return file;
}

ItemPlan item_plan(const Field& field, TaskKind kind, double guidance, std::int64_t version, const Root& root) {
  if (version == kOldestVersion) {
    field.require_keys({"name", "image", "mask", "blend", "input_ids", "negative_input_ids"});
  } else {
    field.require_keys({"name", "image", "mask", "blend", "tokens", "negative_tokens"});
  }
  ItemPlan item;
  item.name = checked_name(field.at("name").text(), field.place() + ".name");
  item.image = item_file(field, "image", kind != TaskKind::kTextToImage, root);
  item.mask = item_file(field, "mask", kind == TaskKind::kInpaint, root);
  item.blend = allowed_file(field, "blend", kind == TaskKind::kInpaint, root);
  read_tokens(field, version, guidance != 1.0, item);
  return item;
}

TaskPlan task_plan(const Field& field, const Plan& plan, std::int64_t version, const Root& root) {
  field.require_keys({"kind", "unet", "adapter", "guidance", "table", "tensors", "items"});
  TaskPlan task;
  task.kind = choice(field.at("kind"), kTaskKinds);
  require_known(field.at("unet"), plan.unets, "U-Net");
  task.unet = field.at("unet").text();
  if (const auto adapter = field.find("adapter")) {
    require_known(*adapter, plan.mixes, "adapter");
    task.adapter = adapter->text();
  }
  task.guidance = field.at("guidance").number();
  task.table = root / field.at("table").text();
  task.tensors = root / field.at("tensors").text();
  std::set<std::string> names;
  for (const Field& item : field.at("items").items()) {
    task.items.push_back(item_plan(item, task.kind, task.guidance, version, root));
    if (!names.insert(task.items.back().name).second) item.at("name").fail("a name that no other item of the task has");
  }
  if (task.items.empty()) field.at("items").fail("at least one item");
  if (task.kind != TaskKind::kTextToImage && !plan.components.vae_encoder) {
    throw InputError("components.vae_encoder", "components.vae_encoder: missing; " + field.place() + " takes an image");
  }
  return task;
}

BlockPlan block_plan(const Field& field, const std::map<std::string, TaskPlan>& tasks) {
  field.require_keys({"task", "warmup", "iterations"});
  require_known(field.at("task"), tasks, "task");
  return {.task = field.at("task").text(),
          .warmup = static_cast<int>(field.at("warmup").integer(0, 1'000'000)),
          .iterations = static_cast<int>(field.at("iterations").integer(1, 1'000'000))};
}

void require_variant_fits(const Plan& plan, const Field& document) {
  if (plan.unets.empty()) document.at("unets").fail("at least one U-Net");
  if (has_unet_per_task(plan.variant) && !plan.adapters.empty()) {
    document.at("adapters").fail("no adapters for variant " + to_string(plan.variant) + ", whose U-Nets have them merged");
  }
  if (!has_unet_per_task(plan.variant) && plan.unets.size() != 1) {
    throw InputError(
        "unets", "unets: found " + std::to_string(plan.unets.size()) + ", expected one for variant " + to_string(plan.variant));
  }
  for (const auto& entry : plan.patches) {
    if (plan.variant == Variant::kPatched && plan.unets.contains(entry.first)) continue;
    document.at("patches").fail("patches of U-Nets of variant patched alone");
  }
  if ((plan.variant == Variant::kMergedAtLoad) != plan.merge.has_value()) {
    throw InputError("merge", std::string("merge: ") + (plan.merge ? "found an object" : "missing") +
                                  "; required for variant merged-at-load, not allowed for others");
  }
}

void verify_file(const PlannedFile& file) {
  if (!file.sha256) return;
  const std::string found = sha256_hex(MappedFile(file.path).bytes());
  if (found != *file.sha256) {
    throw InputError(file.path.string(), "'" + file.path.string() + "' has sha256 " + found + ", expected " + *file.sha256);
  }
}

}  // namespace

Plan parse_plan(std::string_view json) {
  const Document parsed(json, "plan");
  const Field document = parsed.root("");
  document.require_keys({"schema_version", "root", "variant", "verify", "runtime", "components", "unets", "patches", "adapters",
                         "mixes", "merge", "base", "tasks", "sequence", "images"});
  const std::int64_t version = document.at("schema_version").integer(kOldestVersion, kSchemaVersion);
  const Root root = document.at("root").text();

  Plan plan;
  plan.variant = choice(document.at("variant"), kVariants);
  if (const auto verify = document.find("verify")) plan.verify = verify->boolean();
  plan.runtime = runtime_plan(document.at("runtime"), root);
  plan.components = components_plan(document.at("components"), version, root);
  plan.unets = planned_files(document.at("unets"), root);
  if (const auto patches = document.find("patches")) plan.patches = planned_files(*patches, root);
  plan.adapters = planned_files(document.at("adapters"), root);
  if (const auto planned = document.find("mixes")) plan.mixes = mixes(*planned, plan.adapters);
  for (const auto& entry : plan.adapters) plan.mixes.try_emplace(entry.first, AdapterMix{{entry.first, 1.0}});
  if (const auto merge = document.find("merge")) plan.merge = merge_plan(*merge, root);
  if (const auto base = document.find("base")) plan.base = base_digests(*base);
  require_variant_fits(plan, document);
  for (const auto& [name, task] : document.at("tasks").entries()) {
    plan.tasks.emplace(checked_name(name, task.place()), task_plan(task, plan, version, root));
  }
  for (const Field& block : document.at("sequence").items()) plan.sequence.push_back(block_plan(block, plan.tasks));
  if (plan.sequence.empty()) document.at("sequence").fail("at least one block");
  if (const auto images = document.find("images")) plan.images = root / images->text();
  return plan;
}

void verify_files(const Plan& plan) {
  if (!plan.verify) return;
  for (const auto& entry : plan.components.encoders) verify_file(entry.second);
  if (plan.components.vae_encoder) verify_file(*plan.components.vae_encoder);
  verify_file(plan.components.vae_decoder);
  for (const auto& entry : plan.unets) verify_file(entry.second);
  for (const auto& entry : plan.patches) verify_file(entry.second);
  for (const auto& entry : plan.adapters) verify_file(entry.second);
  if (!plan.merge) return;
  verify_file(plan.merge->graph);
  verify_file(plan.merge->weights);
}

bool has_unet_per_task(Variant variant) {
  return loads_own_at_switch(variant) || variant == Variant::kResident || variant == Variant::kContextShared;
}

bool loads_own_at_switch(Variant variant) { return variant == Variant::kPerGraph || variant == Variant::kPatched; }

bool runs_on_npu(const RuntimePlan& runtime) {
  return runtime.dispatch || (runtime.execution_provider && runtime.execution_provider->library);
}

std::string to_string(Variant variant) {
  for (const auto& [name, value] : kVariants) {
    if (value == variant) return name;
  }
  return "unknown";
}

}  // namespace quadbench
