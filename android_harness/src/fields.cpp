#include "fields.hpp"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "errors.hpp"

namespace quadbench {

Field Field::at(const std::string& key) const {
  if (!value_->is_object()) fail("an object");
  const auto entry = value_->find(key);
  const std::string place = place_.empty() ? key : place_ + "." + key;
  if (entry == value_->end()) throw InputError(place, place + ": missing");
  return Field(*entry, place);
}

std::optional<Field> Field::find(const std::string& key) const {
  if (!value_->is_object()) fail("an object");
  const auto entry = value_->find(key);
  if (entry == value_->end() || entry->is_null()) return std::nullopt;
  return at(key);
}

std::vector<Field> Field::items() const {
  if (!value_->is_array()) fail("an array");
  std::vector<Field> fields;
  for (std::size_t i = 0; i < value_->size(); ++i) fields.emplace_back((*value_)[i], place_ + "[" + std::to_string(i) + "]");
  return fields;
}

std::vector<std::pair<std::string, Field>> Field::entries() const {
  if (!value_->is_object()) fail("an object");
  std::vector<std::pair<std::string, Field>> fields;
  for (const auto& [key, value] : value_->items()) fields.emplace_back(key, at(key));
  return fields;
}

void Field::require_keys(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, field] : entries()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw InputError(field.place(), field.place() + ": unknown key; known: " + joined({known.begin(), known.end()}));
    }
  }
}

std::string Field::text() const {
  if (!value_->is_string() || value_->get_ref<const std::string&>().empty()) fail("a string that is not empty");
  return value_->get<std::string>();
}

std::string Field::any_text() const {
  if (!value_->is_string()) fail("a string");
  return value_->get<std::string>();
}

std::string Field::sha256() const {
  constexpr std::string_view kDigits = "0123456789abcdef";
  const bool right = value_->is_string() && value_->get_ref<const std::string&>().size() == 64 &&
                     value_->get_ref<const std::string&>().find_first_not_of(kDigits) == std::string::npos;
  if (!right) fail("64 lower-case hex digits");
  return value_->get<std::string>();
}

std::int64_t Field::integer(std::int64_t lowest, std::int64_t highest) const {
  const bool right = value_->is_number_integer() &&
                     (!value_->is_number_unsigned() || value_->get<std::uint64_t>() <= INT64_MAX) &&
                     value_->get<std::int64_t>() >= lowest && value_->get<std::int64_t>() <= highest;
  if (!right) fail("an integer from " + std::to_string(lowest) + " to " + std::to_string(highest));
  return value_->get<std::int64_t>();
}

double Field::number() const {
  if (!value_->is_number() || !std::isfinite(value_->get<double>())) fail("a finite number");
  return value_->get<double>();
}

bool Field::boolean() const {
  if (!value_->is_boolean()) fail("true or false");
  return value_->get<bool>();
}

std::vector<double> Field::numbers() const {
  std::vector<double> values;
  for (const Field& item : items()) values.push_back(item.number());
  return values;
}

void Field::fail(const std::string& expected) const {
  const std::string name = place_.empty() ? "document" : place_;
  throw InputError(name, name + ": found " + found() + ", expected " + expected);
}

std::string Field::found() const {
  constexpr std::size_t kLongest = 60;
  if (value_->is_object()) return "an object";
  if (value_->is_array()) return "an array of " + std::to_string(value_->size());
  const std::string text = value_->dump();
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

Document::Document(std::string_view text, const std::string& name) {
  try {
    json_ = std::make_unique<const nlohmann::json>(nlohmann::json::parse(text));
  } catch (const nlohmann::json::exception& error) {
    throw InputError(name, name + ": not JSON: " + error.what());
  }
}

Document::~Document() = default;

Field Document::root(std::string place) const { return Field(*json_, std::move(place)); }

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

}  // namespace quadbench
