// Launch: plan -> events. Loads the graphs, runs the blocks of the sequence in order.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "events.hpp"
#include "interrupt.hpp"
#include "merger.hpp"
#include "memory.hpp"
#include "patched_file.hpp"
#include "pipeline.hpp"
#include "plan.hpp"
#include "runtime.hpp"

namespace quadbench {

class Launch {
 public:
  // Loads what all tasks share and checks all tasks against it, before any run. Throws InputError.
  Launch(const Plan& plan, const Runtime& runtime, EventWriter& events, const Interrupt& interrupt);

  void run();  // throws RunError or Interrupted

 private:
  Session load_session(const std::string& component, const std::filesystem::path& graph,
                       std::optional<FileInMemory> weights = std::nullopt);
  Component::Load loader(const std::string& component, const std::filesystem::path& graph);
  template <class Make>
  Component load_component(const std::string& name, const std::filesystem::path& graph, const Make& make);
  Components load_components();
  std::vector<Task> load_tasks() const;
  void load_unet(const std::string& name, const std::filesystem::path& graph, std::optional<FileInMemory> weights = std::nullopt);
  void load_first_unets();
  void load_merger();
  void unload_unets();
  AdapterCache& adapters();
  void hold_adapters();

  void run_block(std::size_t index);
  // What stood between two tasks, and how long it took.
  struct Switch {
    bool has_loaded = false;  // a U-Net
    std::optional<Residence> residence;  // of the adapter; nothing where the task has none
    std::int64_t choice_ns = 0;
    std::int64_t merge_ns = 0;  // 0 where nothing was merged
    std::int64_t patch_ns = 0;  // 0 where nothing was patched
  };
  void enter(const Task& task);
  Switch switch_to(const Task& task);
  void choose_adapter(const Task& task, Switch& done);
  void merge_and_load(const Task& task, Switch& done);
  void load_own(const std::string& name, Switch& done);
  std::optional<NamedAdapter> adapter_of(const Task& task) const;
  void preload_after(std::size_t index);
  void run_image(const Task& task, int iteration, bool is_warmup);
  const Task& find_task(const std::string& name) const;

  void write_times(const Task& task, const Item& item, int iteration, bool is_warmup);
  void write_image(const Task& task, const Item& item);
  void write_memory(const std::optional<std::string>& task);
  void write_load_peak(const std::optional<std::string>& task);
  void write_unet_load(const std::string& name, const std::optional<std::string>& task);
  void write_adapter(const Task& task, const Switch& done);
  void write_patch(const Task& task, const Switch& done);
  void write_peak(const std::string& task);
  void require_room_for_graphs(const std::string& task, std::int64_t peak) const;
  void write_regions(const std::string& task);
  std::set<std::string> graph_files() const;

  const Plan& plan_;
  const Runtime& runtime_;
  EventWriter& events_;
  const Interrupt& interrupt_;
  MemorySampler memory_;
  std::int64_t load_ns_ = 0;  // of the last session
  Components components_;
  Dimensions dimensions_;
  std::vector<Task> tasks_;
  MemoryBudget budget_;
  Pipeline pipeline_;
  std::unique_ptr<Merger> merger_;  // where adapters are merged at load
  std::map<std::string, std::unique_ptr<UNet>> unets_;  // that are loaded; several where the variant keeps them
  UNet* unet_ = nullptr;
  std::size_t merger_bytes_ = 0;  // by which the process grew as it was loaded
  std::size_t unet_bytes_ = 0;    // likewise
  std::optional<std::string> current_task_;  // nothing before the first
  bool is_first_after_switch_ = false;
  std::set<std::string> written_images_;
};

}  // namespace quadbench
