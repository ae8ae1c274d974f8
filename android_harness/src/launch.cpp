#include "launch.hpp"

#include <algorithm>

#include "clock.hpp"
#include "errors.hpp"

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
      dimensions_(dimensions_of(components_.encoders, components_.vae_decoder)),
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

Session Launch::load_session(const std::string& component, const std::filesystem::path& graph,
                             std::optional<FileInMemory> weights) {
  const SessionSettings settings{.intra_op_threads = plan_.runtime.intra_op_threads,
                                 .optimization = plan_.runtime.optimization,
                                 .execution_provider = plan_.runtime.execution_provider,
                                 .shares_context = component == "unet" && plan_.variant == Variant::kContextShared,
                                 .weights = std::move(weights)};
  const std::int64_t begin = now_ns();
  Session session = runtime_.load(graph, settings, component);
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
  std::vector<Component> encoders;
  for (const auto& [name, file] : plan.encoders) encoders.push_back(load_component(name, file.path, prompt_encoder));
  Components components{.encoders = std::move(encoders),
                        .vae_encoder = std::nullopt,
                        .vae_decoder = load_component("vae_decoder", plan.vae_decoder.path, vae_decoder)};
  if (plan.vae_encoder) {
    const Dimensions dimensions = dimensions_of(components.encoders, components.vae_decoder);
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

void Launch::load_unet(const std::string& name, const std::filesystem::path& graph, std::optional<FileInMemory> weights) {
  const std::int64_t before = rss_bytes();
  auto unet = std::make_unique<UNet>(load_session("unet", graph, std::move(weights)), dimensions_,
                                     plan_.runtime.adapter_cache_bytes);
  unet_bytes_ += growth_since(before);
  for (Task& task : tasks_) {
    if (task.plan().unet == name) task.bind(unet->conditions());
  }
  unet_ = unet.get();
  unets_.emplace(name, std::move(unet));
}

// What stays loaded for the whole launch: none where a U-Net is loaded at each switch.
void Launch::load_first_unets() {
  if (loads_own_at_switch(plan_.variant)) return;
  if (plan_.merge) return load_merger();
  for (const auto& entry : plan_.unets) {
    {
      const TimedRegion region(memory_);
      load_unet(entry.first, entry.second.path);
    }
    write_unet_load(entry.first, std::nullopt);
  }
  budget_.set_unet_bytes(unet_bytes_);
  for (const auto& entry : plan_.adapters) {
    check_adapter(entry.second.path, unet_->adapters().lora_inputs(), plan_.base);
  }
}

void Launch::load_merger() {
  {
    const TimedRegion region(memory_);
    const std::int64_t before = rss_bytes();
    merger_ = std::make_unique<Merger>(load_session("merge", plan_.merge->graph.path), plan_.merge->weights.path,
                                       plan_.runtime.adapter_cache_bytes);
    merger_bytes_ = growth_since(before);
  }
  write_unet_load("merge", std::nullopt);
  for (const auto& entry : plan_.adapters) check_adapter(entry.second.path, merger_->adapters().lora_inputs(), plan_.base);
}

// The old U-Net goes before another comes: two at once is what a phone has no room for.
void Launch::unload_unets() {
  unets_.clear();
  unet_bytes_ = 0;
  give_memory_back();
}

AdapterCache& Launch::adapters() { return merger_ ? merger_->adapters() : unet_->adapters(); }

void Launch::hold_adapters() {
  for (const Task& task : tasks_) {
    const auto adapter = adapter_of(task);
    if (!adapter) continue;
    const std::int64_t begin = now_ns();
    if (!adapters().hold(*adapter)) continue;
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
  std::int64_t begin = 0, end = 0;
  Switch done;
  {
    const TimedRegion region(memory_);
    begin = now_ns();
    done = switch_to(task);
    end = now_ns();
  }
  if (done.has_loaded) {
    budget_.set_unet_bytes(merger_bytes_ + unet_bytes_);
    write_unet_load(task.plan().unet, task.name());
  }
  if (done.residence) write_adapter(task, done);
  if (done.patch_ns > 0) write_patch(task, done);
  events_.sample({.metric = "switch_ns",
                  .value = end - begin,
                  .task = task.name(),
                  .labels = {{"from", current_task_.value_or("none")}, {"to", task.name()}}});
  write_load_peak(task.name());
  current_task_ = task.name();
  is_first_after_switch_ = true;
}

Launch::Switch Launch::switch_to(const Task& task) {
  Switch done;
  const auto loaded = unets_.find(task.plan().unet);
  if (merger_) {
    unload_unets();
    merge_and_load(task, done);
  } else if (loaded == unets_.end()) {
    unload_unets();
    load_own(task.plan().unet, done);
    done.has_loaded = true;
    choose_adapter(task, done);
  } else {
    unet_ = loaded->second.get();
    choose_adapter(task, done);
  }
  return done;
}

void Launch::choose_adapter(const Task& task, Switch& done) {
  const auto adapter = adapter_of(task);
  if (!adapter) return adapters().choose_none();
  const std::int64_t begin = now_ns();
  done.residence = adapters().choose(*adapter);
  done.choice_ns = now_ns() - begin;
}

void Launch::merge_and_load(const Task& task, Switch& done) {
  choose_adapter(task, done);
  if (done.residence) {
    const std::int64_t begin = now_ns();
    merger_->add();
    done.merge_ns = now_ns() - begin;
  }
  load_unet(task.plan().unet, plan_.unets.at(task.plan().unet).path, merger_->content());
  merger_->forget();
  unet_->adapters().choose_none();
  done.has_loaded = true;
}

void Launch::load_own(const std::string& name, Switch& done) {
  const std::filesystem::path& graph = plan_.unets.at(name).path;
  const auto patch = plan_.patches.find(name);
  if (patch == plan_.patches.end()) return load_unet(name, graph);
  const std::int64_t begin = now_ns();
  const PatchedFile patched(graph, patch->second.path);
  done.patch_ns = now_ns() - begin;
  load_unet(name, patched.path());
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
    if (const auto adapter = adapter_of(find_task(plan_.sequence[next].task))) adapters().preload(*adapter);
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

const Task& Launch::find_task(const std::string& name) const {
  return *std::find_if(tasks_.begin(), tasks_.end(), [&](const Task& task) { return task.name() == name; });
}

}  // namespace quadbench
