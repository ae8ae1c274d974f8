#include "memory.hpp"

#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "clock.hpp"
#include "errors.hpp"
#include "tensor_memory.hpp"

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

constexpr std::int64_t kKilobyte = 1024;

// The path or name at the end of a mapping's line, `55d0-55d1 r-xp 00000000 08:01 123   /usr/bin/cat`; empty where it has none.
std::string mapped_name(const std::string& line) {
  std::size_t place = 0;
  for (int field = 0; field < 5; ++field) place = line.find_first_not_of(' ', line.find(' ', place));
  return place == std::string::npos ? "" : line.substr(place);
}

// Whether the mapping that a line begins may be executed: the third letter of its second field.
bool is_executable(const std::string& line) {
  const auto place = line.find(' ');
  return place != std::string::npos && place + 3 < line.size() && line[place + 3] == 'x';
}

// Whether a line of smaps begins a mapping: it starts with an address where others have a key and a colon.
bool begins_mapping(const std::string& line) {
  const auto dash = line.find('-');
  return dash != std::string::npos && dash > 0 && line.find_first_not_of("0123456789abcdef") == dash;
}

// A mapped file or another named mapping: resident bytes that were not written to, and whether any of it may be executed.
struct Mapping {
  std::int64_t bytes = 0;
  bool is_code = false;
};

std::string region_of(const std::string& name, const Mapping& mapping, const std::set<std::string>& graphs) {
  if (graphs.contains(name)) return "graphs";
  if (name.starts_with("/dmabuf") || name.starts_with("anon_inode:dmabuf")) return "dma_buf";
  if (name.empty() || name.front() == '[' || name.starts_with("/dev/zero") || name.starts_with("/memfd:")) return "anonymous";
  return mapping.is_code ? "libraries" : "other";
}

}  // namespace

bool reset_peak_rss() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;  // man 5 proc: resets the peak resident set size
  return file.good();
}

std::int64_t peak_rss_bytes() { return status_bytes("VmHWM"); }

std::int64_t rss_bytes() { return status_bytes("VmRSS"); }

std::int64_t swapped_bytes() { return kilobytes("/proc/self/status", "VmSwap").value_or(0) * kKilobyte; }

std::size_t growth_since(std::int64_t rss_bytes_before) {
  return static_cast<std::size_t>(std::max<std::int64_t>(rss_bytes() - rss_bytes_before, 0));
}

std::optional<std::int64_t> pss_bytes() {
  const auto found = kilobytes("/proc/self/smaps_rollup", "Pss");
  if (!found) return std::nullopt;
  return *found * 1024;
}

void give_memory_back() {
  tensor_memory().clear();
#ifdef __GLIBC__
  ::malloc_trim(0);
#elif defined(M_PURGE)
  ::mallopt(M_PURGE, 0);
#endif
}

void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kMostKeptBlock = 32 << 20;  // where glibc's own limit ends; a larger block is mapped and unmapped by itself
  ::mallopt(M_MMAP_THRESHOLD, kMostKeptBlock);
  ::mallopt(M_TRIM_THRESHOLD, 2 * kMostKeptBlock);
#endif
}

std::map<std::string, std::int64_t> rss_by_region(std::istream& smaps, const std::set<std::string>& graphs) {
  std::map<std::string, std::int64_t> regions;
  for (const char* region : {"anonymous", "graphs", "libraries", "dma_buf", "other"}) regions[region] = 0;
  std::map<std::string, Mapping> mappings;
  Mapping* mapping = nullptr;
  std::int64_t rss = 0;
  for (std::string line; std::getline(smaps, line);) {
    if (begins_mapping(line)) {
      mapping = &mappings[mapped_name(line)];
      mapping->is_code = mapping->is_code || is_executable(line);
    } else if (line.starts_with("Rss:")) {
      rss = std::stoll(line.substr(4)) * kKilobyte;
    } else if (line.starts_with("Anonymous:") && mapping != nullptr) {
      // Pages of a file that were written to are the process's own.
      const std::int64_t written = std::min<std::int64_t>(rss, std::stoll(line.substr(10)) * kKilobyte);
      regions["anonymous"] += written;
      mapping->bytes += rss - written;
    }
  }
  if (mappings.empty()) throw RunError("memory", "smaps lists no mapping; it cannot be read, or this kernel has none");
  for (const auto& [name, held] : mappings) regions[region_of(name, held, graphs)] += held.bytes;
  return regions;
}

std::optional<std::int64_t> dma_buf_bytes(const std::string& process) {
  std::error_code error;
  std::map<ino_t, std::int64_t> sizes;
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fd", error)) {
    std::ifstream file(process + "/fdinfo/" + entry.path().filename().string());
    std::optional<std::int64_t> size;
    bool is_dma_buf = false;
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("size:")) size = std::stoll(line.substr(5));
      is_dma_buf = is_dma_buf || line.starts_with("exp_name:");
    }
    struct stat status {};
    if (is_dma_buf && size && ::stat(entry.path().c_str(), &status) == 0) sizes[status.st_ino] = *size;
  }
  if (error) return std::nullopt;
  std::int64_t bytes = 0;
  for (const auto& entry : sizes) bytes += entry.second;
  return bytes;
}

MemorySampler::MemorySampler(std::chrono::milliseconds period) : period_(period) {
  if (period_.count() == 0) return;
  sample();  // where the kernel does not tell, the error is the caller's, not the thread's
  thread_ = std::thread([this] { sample_until_stopped(); });
}

MemorySampler::~MemorySampler() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void MemorySampler::pause() {
  const std::lock_guard lock(mutex_);
  if (thread_.joinable() && Clock::now() >= due_) sample();
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

std::int64_t MemorySampler::spent_ns() {
  const std::lock_guard lock(mutex_);
  return spent_ns_;
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
  const std::int64_t begin = now_ns();
  samples_.push_back({.rss_bytes = rss_bytes(), .pss_bytes = pss_bytes()});
  spent_ns_ += now_ns() - begin;
  due_ = Clock::now() + period_;
}

}  // namespace quadbench
