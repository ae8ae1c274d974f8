// Runtime: the library that loads and runs graphs, opened with dlopen: the program is linked to no version of any.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "plan.hpp"
#include "session.hpp"

namespace quadbench {

class Runtime {
 public:
  virtual ~Runtime() = default;

  virtual const std::string& version() const = 0;

  // Reads and prepares a graph. `name` stands in messages. Throws InputError unless every input and output has a static shape.
  virtual Session load(const std::filesystem::path& graph, const SessionSettings& settings, const std::string& name) const = 0;
};

constexpr const char* kLibraryKey = "runtime.library";

// Opens a runtime's library, with dlopen's flags beside RTLD_NOW and RTLD_LOCAL. Throws InputError with its reason.
void* open_library(const std::filesystem::path& library, int flags = 0);

// Opens the library of the plan; what graphs share exists from then on. Throws InputError.
std::unique_ptr<Runtime> open_runtime(const RuntimePlan& plan);

}  // namespace quadbench
