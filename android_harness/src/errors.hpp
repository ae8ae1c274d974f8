// What the harness throws on purpose. Each carries `where`: the file, key or step that the message is about.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace quadbench {

class Error : public std::runtime_error {
 public:
  Error(std::string where, const std::string& message) : std::runtime_error(message), where_(std::move(where)) {}
  const std::string& where() const { return where_; }

 private:
  std::string where_;
};

// The plan, or a file that it names, is wrong. Exit code 2.
class InputError : public Error {
 public:
  using Error::Error;
};

// A run failed or gave a wrong result. Exit code 3.
class RunError : public Error {
 public:
  using Error::Error;
};

// SIGTERM or SIGINT arrived. Exit code 130.
class Interrupted : public Error {
 public:
  explicit Interrupted(std::string where) : Error(std::move(where), "interrupted") {}
};

}  // namespace quadbench
