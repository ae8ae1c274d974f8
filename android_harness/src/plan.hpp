// Plan: the JSON that says what one launch does. Paths in it are already resolved against the plan's root.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace quadbench {

enum class Variant { kShared, kPerGraph, kResident, kContextShared, kPatched, kMergedAtLoad, kFloat };
enum class TaskKind { kTextToImage, kImageToImage, kInpaint };
enum class Engine { kOnnxRuntime, kLiteRt };  // what graphs are made for
enum class Optimization { kNone, kBasic, kExtended, kAll };
enum class Arena { kNone, kSession, kShared };      // which graphs keep freed memory for their next run, each for itself or together
enum class ThreadPool { kShared, kSession };        // whether graphs compute on the same threads, or each on its own
enum class Preload { kNone, kNext, kAll };          // which adapters are read before their task begins

struct PlannedFile {
  std::filesystem::path path;
  std::optional<std::string> sha256;
};

// What adapters must be made for: the shared U-Net before it was compiled, and the encodings of everything.
struct BaseDigests {
  std::string graph;
  std::string profile;
};

// An execution provider beside the CPU's: one of the runtime library's own, as XNNPACK, or that of a plugin library.
struct ProviderPlan {
  std::string name;
  std::map<std::string, std::string> options;
  std::optional<std::filesystem::path> library;
};

struct RuntimePlan {
  Engine engine = Engine::kOnnxRuntime;
  std::filesystem::path library;  // libonnxruntime.so or libLiteRt.so
  std::optional<std::filesystem::path> dispatch;  // by which LiteRT runs graphs on an NPU; the only one in its folder
  int intra_op_threads = 1;
  std::vector<int> cores;  // that the process may run on; empty: all
  ThreadPool thread_pool = ThreadPool::kShared;
  Arena arena = Arena::kNone;
  Optimization optimization = Optimization::kAll;
  Preload preload = Preload::kNone;
  std::size_t adapter_cache_bytes = std::size_t{512} << 20;
  std::optional<std::size_t> memory_budget_bytes;  // of loaded graphs; nothing: all stay loaded
  int memory_period_ms = 40;                       // between two readings of memory; 0: none
  std::optional<ProviderPlan> execution_provider;  // a plugin takes all; what another does not take runs on the CPU's
};

struct ComponentsPlan {
  std::map<std::string, PlannedFile> encoders;  // of prompts
  std::optional<PlannedFile> vae_encoder;  // needed by tasks that take an image
  PlannedFile vae_decoder;
};

// What adds an adapter to a U-Net's weights: a graph, and the file with those weights that both graphs refer to.
struct MergePlan {
  PlannedFile graph;
  PlannedFile weights;
};

using TokenIds = std::map<std::string, std::vector<std::int32_t>>;  // by input of the encoders

struct ItemPlan {
  std::string name;
  std::optional<std::filesystem::path> image;
  std::optional<std::filesystem::path> mask;
  std::optional<std::filesystem::path> blend;  // nothing: the picture is what the decoder gives
  TokenIds tokens;
  std::optional<TokenIds> negative_tokens;  // nothing: zeros are in place of what encoders give; not read where guidance is 1
};

// Adapters beside each other, by name, each with the factor on its `up`, from -1 to 1. Their ranks add up.
using AdapterMix = std::map<std::string, double>;

struct TaskPlan {
  TaskKind kind = TaskKind::kTextToImage;
  std::string unet;
  std::optional<std::string> adapter;  // or a mix; nothing: zeros in every LoRA input
  double guidance = 1.0;
  std::filesystem::path table;
  std::filesystem::path tensors;
  std::vector<ItemPlan> items;
};

struct BlockPlan {
  std::string task;
  int warmup = 0;
  int iterations = 1;
};

struct Plan {
  Variant variant = Variant::kShared;
  bool verify = true;  // check every sha256 before use
  RuntimePlan runtime;
  ComponentsPlan components;
  std::map<std::string, PlannedFile> unets;
  std::map<std::string, PlannedFile> patches;  // by U-Net, where its file is another's, which this turns into its own
  std::map<std::string, PlannedFile> adapters;
  std::map<std::string, AdapterMix> mixes;  // an adapter alone is one too, with a factor of 1 unless the plan says otherwise
  std::optional<MergePlan> merge;   // where adapters are merged at load
  std::optional<BaseDigests> base;  // nothing: adapters are not asked what they were made for
  std::map<std::string, TaskPlan> tasks;
  std::vector<BlockPlan> sequence;
  std::optional<std::filesystem::path> images;  // folder for <task>/<item>.png
};

// Throws InputError for the first thing in it that is wrong.
Plan parse_plan(std::string_view json);

// Throws InputError unless every file with a sha256 has it.
void verify_files(const Plan& plan);

std::string to_string(Variant variant);

// Whether there is one U-Net for each task, with its adapter merged.
bool has_unet_per_task(Variant variant);

// Whether a U-Net is loaded at each switch, where it has its adapter merged.
bool loads_own_at_switch(Variant variant);

// Whether a vendor's library runs the graphs, in memory of its own.
bool runs_on_npu(const RuntimePlan& runtime);

}  // namespace quadbench
