// Host: what the machine says of itself.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace quadbench {

// Keeps this thread, and those that it starts from now on, to these cores; none given: nothing changes. Throws InputError.
void use_cores(const std::vector<int>& cores);

// Lets other threads compute before this one. Where the system does not allow it, nothing changes.
void yield_to_others();

std::string cpu_model();                                           // from /proc/cpuinfo
std::string utc_text(std::chrono::system_clock::time_point time);  // 2026-01-31T12:00:00Z

}  // namespace quadbench
