#include "task.hpp"

#include "errors.hpp"

namespace quadbench {
namespace {

Table read_table(const TaskPlan& plan) {
  const MappedFile file(plan.table);
  const auto bytes = file.bytes();
  return parse_table({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, plan.table.string(),
                     plan.kind == TaskKind::kInpaint);
}

// The step count is the table's; the width is the U-Net's business.
std::vector<float> read_time_features(const SafeTensors& tensors, const Table& table) {
  const auto entry = tensors.entries().find("time_features");
  const auto steps = static_cast<std::int64_t>(table.steps.size());
  const bool right = entry != tensors.entries().end() && entry->second.shape.size() == 2 && entry->second.shape[0] == steps;
  if (entry != tensors.entries().end() && !right) {
    throw InputError(tensors.name(), "tensor 'time_features' of '" + tensors.name() + "' has shape " +
                                         to_string(entry->second.shape) + ", expected (" + std::to_string(steps) +
                                         ", C) for the table's " + std::to_string(steps) + " steps");
  }
  return tensors.read_floats("time_features", right ? entry->second.shape : Shape{steps, 1});
}

void require_tokens(const std::string& where, const std::vector<std::int32_t>& ids, std::int64_t wanted) {
  if (static_cast<std::int64_t>(ids.size()) == wanted) return;
  throw InputError(where, where + ": found " + std::to_string(ids.size()) + " token ids, expected the text encoder's " +
                              std::to_string(wanted));
}

}  // namespace

Task::Task(std::string name, const TaskPlan& plan, const Dimensions& dimensions)
    : name_(std::move(name)),
      plan_(&plan),
      dimensions_(dimensions),
      table_(read_table(plan)),
      tensors_(plan.tensors),
      time_features_(read_time_features(tensors_, table_)) {
  check_items();
}

Item Task::load(std::size_t iteration) const { return read(plan_->items[iteration % plan_->items.size()]); }

void Task::check_items() const {
  for (const ItemPlan& item : plan_->items) {
    const std::string where = "tasks." + name_ + " item " + item.name;
    require_tokens(where + " input_ids", item.input_ids, dimensions_.tokens[1]);
    if (guidance() != 1.0) require_tokens(where + " negative_input_ids", item.negative_input_ids, dimensions_.tokens[1]);
    read(item);
  }
}

Shape Task::noise_shape() const {
  const Shape& latent = dimensions_.latent;
  return {static_cast<std::int64_t>(steps()) + 1, latent[1], latent[2], latent[3]};
}

Item Task::read(const ItemPlan& plan) const {
  Item item{.name = plan.name,
            .image = {},
            .mask = {},
            .blend = {},
            .noise = tensors_.read_floats("noise." + plan.name, noise_shape()),
            .input_ids = plan.input_ids,
            .negative_input_ids = plan.negative_input_ids};
  if (plan.image) item.image = read_png(*plan.image, dimensions_.height(), dimensions_.width(), 3);
  if (plan.mask) {
    const Pixels mask = read_png(*plan.mask, dimensions_.height(), dimensions_.width(), 1);
    item.mask = mask_at(mask, dimensions_.latent_height(), dimensions_.latent_width());
  }
  if (plan.blend) item.blend = read_png(*plan.blend, dimensions_.height(), dimensions_.width(), 1);
  return item;
}

}  // namespace quadbench
