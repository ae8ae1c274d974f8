#include "host.hpp"

#include <sched.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>

#include "errors.hpp"

namespace quadbench {
namespace {

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

void use_cores(const std::vector<int>& cores) {
  if (cores.empty()) return;
  cpu_set_t mask;
  for (const int core : cores) {  // one by one, so that the message can name the one that is not there
    CPU_ZERO(&mask);
    CPU_SET(core, &mask);
    if (::sched_setaffinity(0, sizeof mask, &mask) == 0) continue;
    throw InputError("runtime.cores", "runtime.cores: this process cannot run on core " + std::to_string(core) + ": " +
                                          std::strerror(errno));
  }
  CPU_ZERO(&mask);
  for (const int core : cores) CPU_SET(core, &mask);
  ::sched_setaffinity(0, sizeof mask, &mask);
}

void yield_to_others() {
  constexpr int kNice = 10;
  ::setpriority(PRIO_PROCESS, 0, kNice);  // of 0, Linux takes the calling thread
}

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
