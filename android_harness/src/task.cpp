#include "task.hpp"

#include "errors.hpp"
#include "fields.hpp"

namespace quadbench {
namespace {

Table read_table(const TaskPlan& plan) {
  const MappedFile file(plan.table);
  const auto bytes = file.bytes();
  return parse_table({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, plan.table.string(),
                     plan.kind == TaskKind::kInpaint);
}

void require_tokens(const std::string& where, const TokenIds& tokens, const std::vector<TensorInfo>& inputs) {
  for (const auto& [name, ids] : tokens) {
    if (find_tensor(inputs, name) == nullptr) throw InputError(where, where + ": no encoder has an input '" + name + "'");
  }
  for (const TensorInfo& input : inputs) {
    const auto ids = tokens.find(input.name);
    if (ids == tokens.end()) throw InputError(where, where + ": has no token ids for the encoder's input '" + input.name + "'");
    if (static_cast<std::int64_t>(ids->second.size()) == input.shape[1]) continue;
    throw InputError(where, where + ": found " + std::to_string(ids->second.size()) + " token ids of '" + input.name +
                                "', expected " + std::to_string(input.shape[1]));
  }
}

Shape with_rows(const Shape& shape, std::int64_t rows) {
  Shape more = shape;
  more[0] = rows;
  return more;
}

}  // namespace

Task::Task(std::string name, const TaskPlan& plan, const Dimensions& dimensions)
    : name_(std::move(name)),
      plan_(&plan),
      dimensions_(dimensions),
      table_(read_table(plan)),
      tensors_(plan.tensors) {
  check_items();
}

Item Task::load(std::size_t iteration) const { return read(plan_->items[iteration % plan_->items.size()]); }

void Task::check_items() const {
  for (const ItemPlan& item : plan_->items) {
    const std::string where = "tasks." + name_ + " item " + item.name;
    require_tokens(where + " tokens", item.tokens, dimensions_.tokens);
    if (item.negative_tokens) require_tokens(where + " negative_tokens", *item.negative_tokens, dimensions_.tokens);
    read(item);
  }
}

void Task::bind(const std::vector<TensorInfo>& conditions) {
  if (!conditions_.empty()) return;  // the U-Net was loaded again
  wanted_ = conditions;
  for (const TensorInfo& wanted : conditions) conditions_.push_back(condition_of(wanted));
}

Condition Task::condition_of(const TensorInfo& wanted) const {
  Condition condition{.source = Condition::Source::kPrompt, .encoded = 0, .rows = {}, .size = elements_of(wanted.shape)};
  const std::string where = "tasks." + name_;
  if (const TensorInfo* encoded = find_tensor(dimensions_.encoded, wanted.name)) {
    if (encoded->shape != wanted.shape) {
      throw InputError(where, where + ": an encoder gives '" + wanted.name + "' as " + encoded->kind() + ", U-Net '" + plan_->unet +
                                  "' takes " + wanted.kind());
    }
    condition.encoded = static_cast<std::size_t>(encoded - dimensions_.encoded.data());
    return condition;
  }
  const auto entry = tensors_.entries().find(wanted.name);
  if (entry != tensors_.entries().end()) {
    const Shape each_step = with_rows(wanted.shape, static_cast<std::int64_t>(steps()));
    if (entry->second.shape != each_step && entry->second.shape != wanted.shape) {
      throw InputError(where, where + ": tensor '" + wanted.name + "' of '" + tensors_.name() + "' has shape " +
                                  to_string(entry->second.shape) + ", expected " + to_string(each_step) +
                                  " for each step, or " + to_string(wanted.shape) + "; U-Net '" + plan_->unet + "' takes " +
                                  to_string(wanted.shape));
    }
    condition.source = Condition::Source::kTask;
    condition.rows = tensors_.read_floats(wanted.name, entry->second.shape);
    return condition;
  }
  const std::string first = wanted.name + "." + plan_->items.front().name;
  if (!tensors_.entries().contains(first)) {
    std::vector<std::string> encoded;
    for (const TensorInfo& info : dimensions_.encoded) encoded.push_back(info.name);
    throw InputError(where, where + ": nothing gives '" + wanted.name + "' " + wanted.kind() + " to U-Net '" + plan_->unet +
                                "': encoders give " + joined(encoded) + ", and '" + tensors_.name() + "' has neither '" +
                                wanted.name + "' nor '" + first + "'");
  }
  condition.source = Condition::Source::kItem;
  for (const ItemPlan& item : plan_->items) tensors_.read_floats(wanted.name + "." + item.name, item_shape(wanted));
  return condition;
}

// The negative prompt's row comes after the prompt's.
Shape Task::item_shape(const TensorInfo& condition) const { return with_rows(condition.shape, guidance() == 1.0 ? 1 : 2); }

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
            .tokens = plan.tokens,
            .negative_tokens = plan.negative_tokens,
            .conditions = {}};
  for (std::size_t i = 0; i < conditions_.size(); ++i) {
    if (conditions_[i].source != Condition::Source::kItem) continue;
    item.conditions.emplace(i, tensors_.read_floats(wanted_[i].name + "." + plan.name, item_shape(wanted_[i])));
  }
  if (plan.image) item.image = read_png(*plan.image, dimensions_.height(), dimensions_.width(), 3);
  if (plan.mask) {
    const Pixels mask = read_png(*plan.mask, dimensions_.height(), dimensions_.width(), 1);
    item.mask = mask_at(mask, dimensions_.latent_height(), dimensions_.latent_width());
  }
  if (plan.blend) item.blend = read_png(*plan.blend, dimensions_.height(), dimensions_.width(), 1);
  return item;
}

}  // namespace quadbench
