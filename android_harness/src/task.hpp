// Task: what a plan says of a task, with its table and tensors read and checked against the graphs' shapes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "components.hpp"
#include "image.hpp"
#include "plan.hpp"
#include "safetensors.hpp"
#include "table.hpp"

namespace quadbench {

// One evaluation input, in memory before the clock starts.
struct Item {
  std::string name;
  Pixels image;                         // no data for text-to-image
  std::vector<float> mask;              // (h, w), empty outside inpaint
  Pixels blend;                         // (H, W, 1), the picture's share in 1/255; no data: nothing is composited
  std::vector<float> noise;             // (1 + steps, 4, h, w)
  std::vector<std::int32_t> input_ids;  // (T)
  std::vector<std::int32_t> negative_input_ids;
};

class Task {
 public:
  // Throws InputError where table, tensors, token ids or images do not fit each other or the graphs.
  Task(std::string name, const TaskPlan& plan, const Dimensions& dimensions);

  const std::string& name() const { return name_; }
  const TaskPlan& plan() const { return *plan_; }
  const Table& table() const { return table_; }
  double guidance() const { return plan_->guidance; }
  std::size_t steps() const { return table_.steps.size(); }
  std::size_t features() const { return time_features_.size() / steps(); }  // C of the U-Net that it needs
  std::span<const float> time_features(std::size_t step) const {
    return std::span(time_features_).subspan(step * features(), features());
  }

  Item load(std::size_t iteration) const;  // item `iteration` modulo their number

 private:
  void check_items() const;
  Shape noise_shape() const;
  Item read(const ItemPlan& plan) const;

  std::string name_;
  const TaskPlan* plan_;
  Dimensions dimensions_;
  Table table_;
  SafeTensors tensors_;
  std::vector<float> time_features_;
};

}  // namespace quadbench
