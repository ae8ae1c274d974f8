#include "launch.hpp"

#include <algorithm>

#include "clock.hpp"
#include "errors.hpp"
#include "sha256.hpp"

namespace quadbench {
namespace {

constexpr std::chrono::milliseconds kMemoryPeriod{40};

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
      memory_(kMemoryPeriod),
      components_(load_components()),
      dimensions_(dimensions_of(components_.text_encoder, components_.vae_decoder)),
      tasks_(load_tasks()),
      pipeline_(components_, dimensions_, longest(tasks_), interrupt) {
  if (plan_.variant != Variant::kPerGraph) {
    preload_unet(plan_.unets.begin()->first);
  }
  write_load_peak(std::nullopt);
}

void Launch::run() {
  for (const BlockPlan& block : plan_.sequence) run_block(block);
}

Session Launch::load_session(const std::string& component, const std::filesystem::path& graph, std::int64_t& elapsed_ns) {
  const SessionSettings settings{.intra_op_threads = plan_.runtime.intra_op_threads,
                                 .optimization = plan_.runtime.optimization,
                                 .execution_provider = plan_.runtime.execution_provider};
  const std::int64_t begin = now_ns();
  Session session(runtime_, graph, settings, component);
  elapsed_ns = now_ns() - begin;
  interrupt_.check("session load");
  return session;
}

Session Launch::load_and_write(const std::string& component, const std::filesystem::path& graph) {
  std::int64_t elapsed_ns = 0;
  std::optional<Session> session;
  {
    const TimedRegion region(memory_);
    session.emplace(load_session(component, graph, elapsed_ns));
  }
  events_.sample({.metric = "session_load_ns", .value = elapsed_ns, .component = component});
  return std::move(*session);
}

Components Launch::load_components() {
  reset_peak_rss();
  const ComponentsPlan& plan = plan_.components;
  Components components{.text_encoder = text_encoder(load_and_write("text_encoder", plan.text_encoder.path)),
                        .vae_encoder = std::nullopt,
                        .vae_decoder = vae_decoder(load_and_write("vae_decoder", plan.vae_decoder.path))};
  if (plan.vae_encoder) {
    components.vae_encoder = vae_encoder(load_and_write("vae_encoder", plan.vae_encoder->path),
                                         dimensions_of(components.text_encoder, components.vae_decoder));
  }
  return components;
}

std::vector<Task> Launch::load_tasks() const {
  std::vector<Task> tasks;
  for (const auto& [name, plan] : plan_.tasks) tasks.emplace_back(name, plan, dimensions_);
  return tasks;
}

// The old U-Net goes first: two at once is what a phone has no room for.
std::int64_t Launch::load_unet(const std::string& name) {
  std::int64_t elapsed_ns = 0;
  unet_.reset();
  unet_.emplace(load_session("unet", plan_.unets.at(name).path, elapsed_ns), dimensions_, plan_.runtime.resident_adapters);
  unet_name_ = name;
  for (const Task& task : tasks_) {
    if (task.plan().unet != name || task.features() == unet_->time_features()) continue;
    throw InputError("tasks." + task.name(), "tasks." + task.name() + ": its time_features have " +
                                                 std::to_string(task.features()) + " columns, U-Net '" + name + "' takes " +
                                                 std::to_string(unet_->time_features()));
  }
  return elapsed_ns;
}

void Launch::preload_unet(const std::string& name) {
  std::int64_t elapsed_ns = 0;
  {
    const TimedRegion region(memory_);
    elapsed_ns = load_unet(name);
  }
  write_unet_load(elapsed_ns, std::nullopt);
  for (const auto& entry : plan_.adapters) {
    check_adapter(entry.second.path, unet_->adapters().lora_inputs(), plan_.base);
  }
}

void Launch::run_block(const BlockPlan& block) {
  const Task& task = find_task(block.task);
  if (task.name() != current_task_) enter(task);
  reset_peak_rss();
  for (int i = 0; i < block.warmup; ++i) run_image(task, i, true);
  for (int i = 0; i < block.iterations; ++i) run_image(task, i, false);
  write_peak(task.name());
}

// Events are written after the last clock reading: the switch of a shared graph is shorter than a line of JSON.
void Launch::enter(const Task& task) {
  reset_peak_rss();
  std::optional<std::int64_t> load_ns;
  std::optional<Residence> residence;
  std::int64_t begin = 0, choice_begin = 0, end = 0;
  {
    const TimedRegion region(memory_);
    begin = now_ns();
    if (unet_name_ != task.plan().unet) load_ns = load_unet(task.plan().unet);
    choice_begin = now_ns();
    residence = choose_adapter(task);
    end = now_ns();
  }
  if (load_ns) write_unet_load(*load_ns, task.name());
  if (residence) {
    events_.sample({.metric = "adapter_load_ns",
                    .value = end - choice_begin,
                    .task = task.name(),
                    .labels = {{"adapter", *task.plan().adapter}, {"state", to_string(*residence)}}});
  }
  events_.sample({.metric = "switch_ns",
                  .value = end - begin,
                  .task = task.name(),
                  .labels = {{"from", current_task_}, {"to", task.name()}}});
  write_load_peak(task.name());
  current_task_ = task.name();
  is_first_after_switch_ = true;
}

std::optional<Residence> Launch::choose_adapter(const Task& task) {
  const auto& mix = task.plan().adapter;
  if (!mix) {
    unet_->adapters().choose_none();
    return std::nullopt;
  }
  std::vector<AdapterPart> parts;
  for (const auto& [adapter, factor] : plan_.mixes.at(*mix)) {
    parts.push_back({.file = plan_.adapters.at(adapter).path, .factor = factor});
  }
  return unet_->adapters().choose(*mix, parts);
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

void Launch::write_unet_load(std::int64_t elapsed_ns, const std::optional<std::string>& task) {
  events_.sample(
      {.metric = "session_load_ns", .value = elapsed_ns, .task = task, .component = "unet", .labels = {{"unet", unet_name_}}});
}

void Launch::write_peak(const std::string& task) {
  const std::int64_t peak = peak_rss_bytes();
  const auto weights = static_cast<std::int64_t>(components_.file_bytes() + unet_->file_bytes());
  if (peak < weights) {
    throw RunError("task " + task, "the peak of " + std::to_string(peak) + " bytes is below the " + std::to_string(weights) +
                                       " bytes of the graphs that are loaded; it cannot be right");
  }
  events_.sample({.metric = "peak_rss_bytes", .value = peak, .task = task});
}

const Task& Launch::find_task(const std::string& name) const {
  return *std::find_if(tasks_.begin(), tasks_.end(), [&](const Task& task) { return task.name() == name; });
}

}  // namespace quadbench
