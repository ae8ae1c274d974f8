// Host: what the machine says of itself.
#pragma once

#include <chrono>
#include <string>

namespace quadbench {

std::string cpu_model();                                           // from /proc/cpuinfo
std::string utc_text(std::chrono::system_clock::time_point time);  // 2026-01-31T12:00:00Z

}  // namespace quadbench
