// Task: what a plan says of a task, with its table and tensors read and checked against the graphs' shapes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
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
  TokenIds tokens;
  std::optional<TokenIds> negative_tokens;
  std::map<std::size_t, std::vector<float>> conditions;  // of the U-Net that the item gives, by their number: for the prompt, then
                                                         // with guidance for the negative prompt
};

// Where a condition of the U-Net comes from: a data input beside `sample`.
struct Condition {
  enum class Source { kPrompt, kTask, kItem };

  Source source = Source::kPrompt;
  std::size_t encoded = 0;  // of a prompt: which output of the encoders
  std::vector<float> rows;  // of a task: one for each step, or one
  std::size_t size = 0;     // elements of a row

  std::span<const float> row(std::size_t step) const {
    return std::span(rows).subspan(rows.size() == size ? 0 : step * size, size);
  }
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
  const std::vector<Condition>& conditions() const { return conditions_; }  // in the order of the U-Net's

  // Finds what gives each condition of the task's U-Net: an encoder's output of its name, else the task's tensor of that name, else
  // the items' `NAME.<item>`. Throws InputError where there is none, or it has another shape.
  void bind(const std::vector<TensorInfo>& conditions);

  Item load(std::size_t iteration) const;  // item `iteration` modulo their number

 private:
  void check_items() const;
  Condition condition_of(const TensorInfo& wanted) const;
  Shape item_shape(const TensorInfo& condition) const;
  Shape noise_shape() const;
  Item read(const ItemPlan& plan) const;

  std::string name_;
  const TaskPlan* plan_;
  Dimensions dimensions_;
  Table table_;
  SafeTensors tensors_;
  std::vector<TensorInfo> wanted_;
  std::vector<Condition> conditions_;
};

}  // namespace quadbench
