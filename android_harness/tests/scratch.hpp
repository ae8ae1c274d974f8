// A folder for one test's files, and the message of an error that is expected.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

#include "errors.hpp"

class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "harness-tests-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    folder_ = name;
  }
  ~Scratch() {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  std::filesystem::path path(const std::string& name) const { return folder_ / name; }

 private:
  std::filesystem::path folder_;
};

template <class Call>
std::string input_error(const Call& call) {
  try {
    call();
  } catch (const quadbench::InputError& error) {
    return error.what();
  }
  return "no InputError";
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
