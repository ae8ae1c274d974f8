// What a launch writes about its images, switches and memory, while no clock runs.
#include <fstream>

#include "errors.hpp"
#include "launch.hpp"
#include "sha256.hpp"

namespace quadbench {

void Launch::write_times(const Task& task, const Item& item, int iteration, bool is_warmup) {
  const ImageTimes& times = pipeline_.times();
  Sample sample{.metric = {}, .task = task.name(), .iteration = iteration, .item = item.name, .is_warmup = is_warmup};
  const auto write = [&](const char* metric, std::int64_t value, std::optional<std::string> component) {
    sample.metric = metric;
    sample.value = value;
    sample.component = std::move(component);
    events_.sample(sample);
  };
  if (is_first_after_switch_) {
    events_.sample(
        {.metric = "first_unet_ns", .value = times.first_run_ns, .task = task.name(), .component = "unet", .item = item.name});
    is_first_after_switch_ = false;
  }
  for (std::size_t i = 0; i < times.encoder_ns.size(); ++i) {
    write("text_encoder_ns", times.encoder_ns[i], components_.encoders[i].name());
  }
  if (!item.image.data.empty()) write("vae_encoder_ns", times.vae_encoder_ns, "vae_encoder");
  sample.labels = {{"runs", task.guidance() == 1.0 ? "1" : "2"}};
  for (std::size_t step = 0; step < times.unet_ns.size(); ++step) {
    sample.step = static_cast<int>(step);
    write("unet_ns", times.unet_ns[step], "unet");
  }
  sample.labels.clear();
  sample.step.reset();
  write("vae_decoder_ns", times.vae_decoder_ns, "vae_decoder");
  for (const Reload& reload : times.reloads) write("reload_ns", reload.elapsed_ns, reload.component);
  write("end_to_end_ns", times.end_to_end_ns, std::nullopt);
  write("residual_ns", times.residual_ns(), std::nullopt);
}

void Launch::write_image(const Task& task, const Item& item) {
  const auto png = encode_png(pipeline_.image());
  const std::filesystem::path path = *plan_.images / task.name() / (item.name + ".png");
  write_file(path, png);
  events_.image(task.name(), item.name, path.string(), sha256_hex(png));
}

void Launch::write_memory(const std::optional<std::string>& task) {
  for (const MemorySample& sample : memory_.drain()) {
    events_.sample({.metric = "rss_bytes", .value = sample.rss_bytes, .task = task});
    if (sample.pss_bytes) events_.sample({.metric = "pss_bytes", .value = *sample.pss_bytes, .task = task});
  }
}

void Launch::write_load_peak(const std::optional<std::string>& task) {
  write_memory(task);
  events_.sample({.metric = "load_peak_rss_bytes", .value = peak_rss_bytes(), .task = task});
}

void Launch::write_unet_load(const std::string& name, const std::optional<std::string>& task) {
  events_.sample({.metric = "session_load_ns", .value = load_ns_, .task = task, .component = "unet", .labels = {{"unet", name}}});
}

void Launch::write_adapter(const Task& task, const Switch& done) {
  const auto write = [&](const char* metric, std::int64_t value, std::map<std::string, std::string> labels) {
    labels.emplace("adapter", *task.plan().adapter);
    events_.sample({.metric = metric, .value = value, .task = task.name(), .labels = std::move(labels)});
  };
  write("adapter_load_ns", done.choice_ns, {{"state", to_string(*done.residence)}});
  if (const auto preload_ns = adapters().take_preload_ns()) write("adapter_preload_ns", *preload_ns, {});
  if (done.merge_ns > 0) write("adapter_merge_ns", done.merge_ns, {});
}

void Launch::write_patch(const Task& task, const Switch& done) {
  events_.sample({.metric = "patch_ns", .value = done.patch_ns, .task = task.name(), .labels = {{"unet", task.plan().unet}}});
}

void Launch::write_peak(const std::string& task) {
  const std::int64_t peak = peak_rss_bytes();
  if (!runs_on_npu(plan_.runtime)) require_room_for_graphs(task, peak + swapped_bytes());
  events_.sample({.metric = "peak_rss_bytes", .value = peak, .task = task});
}

// What a vendor's library holds of a graph may lie in buffers that are not resident in this process; ONNX Runtime's own may not.
void Launch::require_room_for_graphs(const std::string& task, std::int64_t peak) const {
  auto weights = static_cast<std::int64_t>(components_.file_bytes());
  for (const auto& entry : unets_) weights += static_cast<std::int64_t>(entry.second->file_bytes());
  if (peak < weights) {
    throw RunError("task " + task, "peak memory of " + std::to_string(peak) + " bytes, swap included, is below the " +
                                       std::to_string(weights) + " bytes of the loaded graphs, which is impossible");
  }
}

void Launch::write_regions(const std::string& task) {
  std::ifstream smaps("/proc/self/smaps");
  for (const auto& [region, bytes] : rss_by_region(smaps, graph_files())) {
    events_.sample({.metric = "rss_" + region + "_bytes", .value = bytes, .task = task});
  }
  const auto adapter_bytes = static_cast<std::int64_t>(adapters().resident_bytes());
  events_.sample({.metric = "adapter_cache_bytes", .value = adapter_bytes, .task = task});
  if (const auto bytes = dma_buf_bytes("/proc/self")) {
    events_.sample({.metric = "dma_buf_bytes", .value = *bytes, .task = task});
  }
}

std::set<std::string> Launch::graph_files() const {
  std::set<std::string> files{plan_.components.vae_decoder.path};
  for (const auto& entry : plan_.components.encoders) files.insert(entry.second.path);
  if (plan_.components.vae_encoder) files.insert(plan_.components.vae_encoder->path);
  for (const auto& entry : plan_.unets) files.insert(entry.second.path);
  if (plan_.merge) files.insert(plan_.merge->weights.path);
  return files;
}

}  // namespace quadbench
