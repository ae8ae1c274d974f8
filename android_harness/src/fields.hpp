// Reading JSON strictly: every wrong field is an InputError that names the key, what was found and what was expected.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace quadbench {

// A value in a document, with its place in it as `tasks.restyle.items[0]`. It refers to the document, which must outlive it.
class Field {
 public:
  Field(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  const std::string& place() const { return place_; }

  Field at(const std::string& key) const;                                  // the key must be there
  std::optional<Field> find(const std::string& key) const;                 // nothing where the key is absent or null
  std::vector<Field> items() const;                                        // of an array
  std::vector<std::pair<std::string, Field>> entries() const;              // of an object
  void require_keys(std::initializer_list<std::string_view> known) const;  // an object without other keys

  std::string text() const;    // a string that is not empty
  std::string any_text() const;
  std::string sha256() const;  // 64 hex digits
  std::int64_t integer(std::int64_t lowest, std::int64_t highest) const;
  double number() const;  // finite
  bool boolean() const;
  std::vector<double> numbers() const;

  [[noreturn]] void fail(const std::string& expected) const;

 private:
  std::string found() const;

  const nlohmann::json* value_;
  std::string place_;
};

// A parsed text. Only this file's source sees the JSON library, which takes long to compile.
class Document {
 public:
  Document(std::string_view text, const std::string& name);  // `name` stands in messages
  ~Document();
  Document(const Document&) = delete;
  Document& operator=(const Document&) = delete;

  Field root(std::string place) const;

 private:
  std::unique_ptr<const nlohmann::json> json_;
};

// "a, b, c", or "none".
std::string joined(const std::vector<std::string>& names);

}  // namespace quadbench
