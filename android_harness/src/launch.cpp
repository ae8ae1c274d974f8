#include "launch.hpp"

#include <algorithm>
#include <fstream>

#include "clock.hpp"
#include "errors.hpp"
#include "sha256.hpp"

namespace quadbench {
namespace {

std::size_t longest(const std::vector<Task>& tasks) {
  std::size_t steps = 0;
  for (const Task& task : tasks) steps = std::max(steps, task.steps());
  return steps;
}

}  // namespace

Launch::Launch(const Plan& plan, const Runtime& runtime, EventWriter& events, const Interrupt& interrupt)
    : plan_(plan),
      runtime_(runtime),
      events_(events),
      interrupt_(interrupt),
      memory_(std::chrono::milliseconds{plan.runtime.memory_period_ms}),
      components_(load_components()),
      dimensions_(dimensions_of(components_.text_encoder, components_.vae_decoder)),
      tasks_(load_tasks()),
      budget_(components_, plan.runtime.memory_budget_bytes),
      pipeline_(components_, budget_, dimensions_, longest(tasks_), interrupt) {
  load_first_unets();
  if (plan_.runtime.preload == Preload::kAll) hold_adapters();
  write_load_peak(std::nullopt);
}

void Launch::run() {
  for (std::size_t index = 0; index < plan_.sequence.size(); ++index) run_block(index);
  events_.sample({.metric = "memory_sampling_ns", .value = memory_.spent_ns()});
}

Session Launch::load_session(const std::string& component, const std::filesystem::path& graph) {
  const SessionSettings settings{.intra_op_threads = plan_.runtime.intra_op_threads,
                                 .optimization = plan_.runtime.optimization,
                                 .execution_provider = plan_.runtime.execution_provider};
  const std::int64_t begin = now_ns();
  Session session(runtime_, graph, settings, component);
  load_ns_ = now_ns() - begin;
  interrupt_.check("session load");
  return session;
}

Component::Load Launch::loader(const std::string& component, const std::filesystem::path& graph) {
  return [this, component, graph] { return load_session(component, graph); };
}

template <class Make>
Component Launch::load_component(const std::string& name, const std::filesystem::path& graph, const Make& make) {
  std::optional<Component> component;
  {
    const TimedRegion region(memory_);
    component.emplace(make(loader(name, graph)));
  }
  events_.sample({.metric = "session_load_ns", .value = load_ns_, .component = name});
  return std::move(*component);
}

Components Launch::load_components() {
  reset_peak_rss();
  const ComponentsPlan& plan = plan_.components;
  Components components{.text_encoder = load_component("text_encoder", plan.text_encoder.path, text_encoder),
                        .vae_encoder = std::nullopt,
                        .vae_decoder = load_component("vae_decoder", plan.vae_decoder.path, vae_decoder)};
  if (plan.vae_encoder) {
    const Dimensions dimensions = dimensions_of(components.text_encoder, components.vae_decoder);
    components.vae_encoder = load_component("vae_encoder", plan.vae_encoder->path,
                                            [&](Component::Load loader) { return vae_encoder(std::move(loader), dimensions); });
  }
  return components;
}

std::vector<Task> Launch::load_tasks() const {
  std::vector<Task> tasks;
  for (const auto& [name, plan] : plan_.tasks) tasks.emplace_back(name, plan, dimensions_);
  return tasks;
}

void Launch::load_unet(const std::string& name) {
  const std::int64_t before = rss_bytes();
  auto unet = std::make_unique<UNet>(load_session("unet", plan_.unets.at(name).path), dimensions_,
                                     plan_.runtime.adapter_cache_bytes);
  unet_bytes_ += static_cast<std::size_t>(std::max<std::int64_t>(rss_bytes() - before, 0));
  for (const Task& task : tasks_) {
    if (task.plan().unet != name || task.features() == unet->time_features()) continue;
    throw InputError("tasks." + task.name(), "tasks." + task.name() + ": its time_features have " +
                                                 std::to_string(task.features()) + " columns, U-Net '" + name + "' takes " +
                                                 std::to_string(unet->time_features()));
  }
  unet_ = unet.get();
  unets_.emplace(name, std::move(unet));
}

// What stays loaded for the whole launch: none where each task's own U-Net is loaded at the switch into it.
void Launch::load_first_unets() {
  if (plan_.variant == Variant::kPerGraph) return;
  for (const auto& entry : plan_.unets) {
    {
      const TimedRegion region(memory_);
      load_unet(entry.first);
    }
    write_unet_load(entry.first, std::nullopt);
  }
  budget_.set_unet_bytes(unet_bytes_);
  for (const auto& entry : plan_.adapters) {
    check_adapter(entry.second.path, unet_->adapters().lora_inputs(), plan_.base);
  }
}

void Launch::hold_adapters() {
  for (const Task& task : tasks_) {
    const auto adapter = adapter_of(task);
    if (!adapter) continue;
    const std::int64_t begin = now_ns();
    if (!unet_->adapters().hold(*adapter)) continue;
    events_.sample({.metric = "adapter_preload_ns",
                    .value = now_ns() - begin,
                    .task = task.name(),
                    .labels = {{"adapter", adapter->name}}});
  }
}

void Launch::run_block(std::size_t index) {
  const BlockPlan& block = plan_.sequence[index];
  const Task& task = find_task(block.task);
  if (task.name() != current_task_) enter(task);
  if (plan_.runtime.preload == Preload::kNext) preload_after(index);
  reset_peak_rss();
  for (int i = 0; i < block.warmup; ++i) run_image(task, i, true);
  for (int i = 0; i < block.iterations; ++i) run_image(task, i, false);
  write_peak(task.name());
  write_regions(task.name());
}

// Events are written after the last clock reading: the switch of a shared graph is shorter than a line of JSON.
void Launch::enter(const Task& task) {
  reset_peak_rss();
  const auto loaded = unets_.find(task.plan().unet);
  const bool is_loaded = loaded != unets_.end();
  std::optional<Residence> residence;
  std::int64_t begin = 0, choice_begin = 0, end = 0;
  {
    const TimedRegion region(memory_);
    begin = now_ns();
    if (is_loaded) {
      unet_ = loaded->second.get();
    } else {
      unets_.clear();  // the old U-Net goes first: two at once is what a phone has no room for
      unet_bytes_ = 0;
      give_memory_back();
      load_unet(task.plan().unet);
    }
    choice_begin = now_ns();
    residence = choose_adapter(task);
    end = now_ns();
  }
  if (!is_loaded) {
    budget_.set_unet_bytes(unet_bytes_);
    write_unet_load(task.plan().unet, task.name());
  }
  if (residence) write_adapter(task, *residence, end - choice_begin);
  events_.sample({.metric = "switch_ns",
                  .value = end - begin,
                  .task = task.name(),
                  .labels = {{"from", current_task_}, {"to", task.name()}}});
  write_load_peak(task.name());
  current_task_ = task.name();
  is_first_after_switch_ = true;
}

std::optional<Residence> Launch::choose_adapter(const Task& task) {
  if (const auto adapter = adapter_of(task)) return unet_->adapters().choose(*adapter);
  unet_->adapters().choose_none();
  return std::nullopt;
}

std::optional<NamedAdapter> Launch::adapter_of(const Task& task) const {
  const auto& mix = task.plan().adapter;
  if (!mix) return std::nullopt;
  NamedAdapter adapter{.name = *mix, .parts = {}};
  for (const auto& [name, factor] : plan_.mixes.at(*mix)) {
    adapter.parts.push_back({.file = plan_.adapters.at(name).path, .factor = factor});
  }
  return adapter;
}

// Begins to read the adapter of the task that comes after this block's.
void Launch::preload_after(std::size_t index) {
  for (std::size_t next = index + 1; next < plan_.sequence.size(); ++next) {
    if (plan_.sequence[next].task == current_task_) continue;
    if (const auto adapter = adapter_of(find_task(plan_.sequence[next].task))) unet_->adapters().preload(*adapter);
    return;
  }
}

void Launch::run_image(const Task& task, int iteration, bool is_warmup) {
  const Item item = task.load(static_cast<std::size_t>(iteration));
  {
    const TimedRegion region(memory_);
    pipeline_.run(task, item, *unet_);
  }
  pipeline_.require_finite(task, item);
  write_times(task, item, iteration, is_warmup);
  write_memory(task.name());
  if (plan_.images && written_images_.insert(task.name() + "/" + item.name).second) write_image(task, item);
  interrupt_.check("between images");
}

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
  write("text_encoder_ns", times.text_encoder_ns, "text_encoder");
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

void Launch::write_adapter(const Task& task, Residence residence, std::int64_t elapsed_ns) {
  const std::string& adapter = *task.plan().adapter;
  events_.sample({.metric = "adapter_load_ns",
                  .value = elapsed_ns,
                  .task = task.name(),
                  .labels = {{"adapter", adapter}, {"state", to_string(residence)}}});
  if (const auto preload_ns = unet_->adapters().take_preload_ns()) {
    events_.sample(
        {.metric = "adapter_preload_ns", .value = *preload_ns, .task = task.name(), .labels = {{"adapter", adapter}}});
  }
}

void Launch::write_peak(const std::string& task) {
  const std::int64_t peak = peak_rss_bytes();
  auto weights = static_cast<std::int64_t>(components_.file_bytes());
  for (const auto& entry : unets_) weights += static_cast<std::int64_t>(entry.second->file_bytes());
  if (peak < weights) {
    throw RunError("task " + task, "the peak of " + std::to_string(peak) + " bytes is below the " + std::to_string(weights) +
                                       " bytes of the graphs that are loaded; it cannot be right");
  }
  events_.sample({.metric = "peak_rss_bytes", .value = peak, .task = task});
}

void Launch::write_regions(const std::string& task) {
  std::ifstream smaps("/proc/self/smaps");
  for (const auto& [region, bytes] : rss_by_region(smaps, graph_files())) {
    events_.sample({.metric = "rss_" + region + "_bytes", .value = bytes, .task = task});
  }
  const auto adapters = static_cast<std::int64_t>(unet_->adapters().resident_bytes());
  events_.sample({.metric = "adapter_cache_bytes", .value = adapters, .task = task});
  if (const auto bytes = dma_buf_bytes("/proc/self")) {
    events_.sample({.metric = "dma_buf_bytes", .value = *bytes, .task = task});
  }
}

std::set<std::string> Launch::graph_files() const {
  std::set<std::string> files{plan_.components.text_encoder.path, plan_.components.vae_decoder.path};
  if (plan_.components.vae_encoder) files.insert(plan_.components.vae_encoder->path);
  for (const auto& entry : plan_.unets) files.insert(entry.second.path);
  return files;
}

const Task& Launch::find_task(const std::string& name) const {
  return *std::find_if(tasks_.begin(), tasks_.end(), [&](const Task& task) { return task.name() == name; });
}

}  // namespace quadbench
