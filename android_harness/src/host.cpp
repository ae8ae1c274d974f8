#include "host.hpp"

#include <ctime>
#include <fstream>
#include <map>

namespace quadbench {
namespace {

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

// x86 has "model name"; older arm64 kernels "Hardware"; newer ones only the part number of each core.
std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  std::map<std::string, std::string> last;
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(':');
    if (colon != std::string::npos) last[trimmed(line.substr(0, colon))] = trimmed(line.substr(colon + 1));
  }
  for (const char* key : {"model name", "Hardware"}) {
    if (last.contains(key) && !last[key].empty()) return last[key];
  }
  if (last.contains("CPU part")) return "implementer " + last["CPU implementer"] + " part " + last["CPU part"];
  return "unknown";
}

std::string utc_text(std::chrono::system_clock::time_point time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[sizeof "2026-01-31T12:00:00Z"];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace quadbench
