#include "memory.hpp"

#include <fstream>
#include <string>
#include <utility>

#include "errors.hpp"

namespace quadbench {
namespace {

// Value of a line `Key:  123 kB`.
std::optional<std::int64_t> kilobytes(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1));
  }
  return std::nullopt;
}

std::int64_t status_bytes(const std::string& key) {
  const auto found = kilobytes("/proc/self/status", key);
  if (!found) throw RunError("memory", "/proc/self/status has no " + key);
  return *found * 1024;
}

}  // namespace

bool reset_peak_rss() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;  // man 5 proc: resets the peak resident set size
  return file.good();
}

std::int64_t peak_rss_bytes() { return status_bytes("VmHWM"); }

std::int64_t rss_bytes() { return status_bytes("VmRSS"); }

std::optional<std::int64_t> pss_bytes() {
  const auto found = kilobytes("/proc/self/smaps_rollup", "Pss");
  if (!found) return std::nullopt;
  return *found * 1024;
}

MemorySampler::MemorySampler(std::chrono::milliseconds period) : period_(period) {
  sample();  // where the kernel does not tell, the error is the caller's, not the thread's
  thread_ = std::thread([this] { sample_until_stopped(); });
}

MemorySampler::~MemorySampler() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void MemorySampler::pause() {
  const std::lock_guard lock(mutex_);
  if (Clock::now() >= due_) sample();
  paused_ = true;
}

void MemorySampler::resume() {
  {
    const std::lock_guard lock(mutex_);
    paused_ = false;
  }
  changed_.notify_one();
}

std::vector<MemorySample> MemorySampler::drain() {
  const std::lock_guard lock(mutex_);
  return std::exchange(samples_, {});
}

void MemorySampler::sample_until_stopped() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (paused_) {
      changed_.wait(lock, [this] { return stopped_ || !paused_; });
    } else if (Clock::now() < due_) {
      changed_.wait_until(lock, due_);
    } else {
      sample();
    }
  }
}

void MemorySampler::sample() {
  samples_.push_back({.rss_bytes = rss_bytes(), .pss_bytes = pss_bytes()});
  due_ = Clock::now() + period_;
}

}  // namespace quadbench
