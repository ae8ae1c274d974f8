// Launch: plan -> events. Loads the graphs, runs the blocks of the sequence in order.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "events.hpp"
#include "interrupt.hpp"
#include "memory.hpp"
#include "ort.hpp"
#include "pipeline.hpp"
#include "plan.hpp"

namespace quadbench {

class Launch {
 public:
  // Loads what all tasks share and checks all tasks against it, before any run. Throws InputError.
  Launch(const Plan& plan, const Runtime& runtime, EventWriter& events, const Interrupt& interrupt);

  void run();  // throws RunError or Interrupted

 private:
  Session load_session(const std::string& component, const std::filesystem::path& graph, std::int64_t& elapsed_ns);
  Session load_and_write(const std::string& component, const std::filesystem::path& graph);
  Components load_components();
  std::vector<Task> load_tasks() const;
  std::int64_t load_unet(const std::string& name);
  void preload_unet(const std::string& name);

  void run_block(const BlockPlan& block);
  void enter(const Task& task);
  std::optional<Residence> choose_adapter(const Task& task);
  void run_image(const Task& task, int iteration, bool is_warmup);
  const Task& find_task(const std::string& name) const;

  void write_times(const Task& task, const Item& item, int iteration, bool is_warmup);
  void write_image(const Task& task, const Item& item);
  void write_memory(const std::optional<std::string>& task);
  void write_load_peak(const std::optional<std::string>& task);
  void write_unet_load(std::int64_t elapsed_ns, const std::optional<std::string>& task);
  void write_peak(const std::string& task);

  const Plan& plan_;
  const Runtime& runtime_;
  EventWriter& events_;
  const Interrupt& interrupt_;
  MemorySampler memory_;
  Components components_;
  Dimensions dimensions_;
  std::vector<Task> tasks_;
  Pipeline pipeline_;
  std::optional<UNet> unet_;
  std::string unet_name_;
  std::string current_task_ = "none";
  bool is_first_after_switch_ = false;
  std::set<std::string> written_images_;
};

}  // namespace quadbench
