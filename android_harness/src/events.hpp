// Events: what happened -> JSON Lines, flushed line by line. Formats and writes, so it is used outside the timed regions only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "libraries.hpp"

namespace quadbench {

struct Header {
  std::string runtime_version;
  std::string plan_sha256;
  std::string variant;
  std::string started_at;
  bool peak_reset = true;
};

struct Sample {
  std::string metric;
  std::int64_t value = 0;
  std::optional<std::string> task = {};
  std::optional<std::string> component = {};
  std::optional<int> iteration = {};
  std::optional<int> step = {};
  std::optional<std::string> item = {};
  bool is_warmup = false;
  std::map<std::string, std::string> labels = {};
};

class EventWriter {
 public:
  explicit EventWriter(std::ostream& out);  // the clock of the footer's wall_ns starts here

  void header(const Header& header);
  void sample(const Sample& sample);
  void image(const std::string& task, const std::string& item, const std::string& path, const std::string& sha256);
  void libraries(const std::vector<LoadedLibrary>& libraries);
  void error(const std::string& where, const std::string& message);
  void footer(bool is_ok);

 private:
  void write(const nlohmann::ordered_json& event);

  std::ostream& out_;
  std::int64_t started_ns_;
  std::int64_t samples_ = 0;
};

}  // namespace quadbench
