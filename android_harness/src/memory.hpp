// Memory of this process: peak since a reset, resident and proportional size, sampled by a thread that sleeps while the clock
// runs.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <istream>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace quadbench {

// Sets VmHWM to the resident size of now. False where the kernel refuses; peaks then reach back to the start.
bool reset_peak_rss();

std::int64_t peak_rss_bytes();            // VmHWM; throws RunError where the kernel does not tell
std::int64_t rss_bytes();                 // VmRSS; likewise
std::int64_t swapped_bytes();             // VmSwap; 0 where the kernel does not tell
std::optional<std::int64_t> pss_bytes();  // nothing where smaps_rollup cannot be read

// How much larger the resident size is than it was; 0 where it shrank.
std::size_t growth_since(std::int64_t rss_bytes_before);

// Tells the C library to return to the system what was freed.
void give_memory_back();

// Tells glibc to give the end of its heap back only beyond 64 MiB, from the start. It comes to that by itself as large blocks are
// freed, so that how graphs were loaded would decide whether each run gives its memory back and faults it in again.
void keep_freed_memory();

// Resident bytes by what they are for: `anonymous`, `graphs` (mapped files of the plan), `libraries` (files with code, whatever
// they are called, this program's among them), `dma_buf`, `other`. All are there; 0 where there is none. `smaps` has the format of
// /proc/PID/smaps; throws RunError where it tells of no mapping.
std::map<std::string, std::int64_t> rss_by_region(std::istream& smaps, const std::set<std::string>& graphs);

// Bytes of the DMA buffers that are open, each once however often. Nothing where the kernel does not tell. `process` is a folder
// as /proc/self.
std::optional<std::int64_t> dma_buf_bytes(const std::string& process);

struct MemorySample {
  std::int64_t rss_bytes = 0;
  std::optional<std::int64_t> pss_bytes;
};

class MemorySampler {
 public:
  // A period of 0: no sample is ever taken.
  explicit MemorySampler(std::chrono::milliseconds period);
  ~MemorySampler();
  MemorySampler(const MemorySampler&) = delete;
  MemorySampler& operator=(const MemorySampler&) = delete;

  // Returns when no sample is being taken, having taken the one that was due; none is taken before `resume`.
  void pause();
  void resume();
  std::vector<MemorySample> drain();  // those since the last call
  std::int64_t spent_ns();            // that all samples so far took

 private:
  using Clock = std::chrono::steady_clock;
  void sample_until_stopped();
  void sample();

  std::chrono::milliseconds period_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool paused_ = false;
  bool stopped_ = false;
  Clock::time_point due_;
  std::vector<MemorySample> samples_;
  std::int64_t spent_ns_ = 0;
  std::thread thread_;
};

// Between construction and destruction no memory is sampled.
class TimedRegion {
 public:
  explicit TimedRegion(MemorySampler& sampler) : sampler_(sampler) { sampler_.pause(); }
  ~TimedRegion() { sampler_.resume(); }
  TimedRegion(const TimedRegion&) = delete;
  TimedRegion& operator=(const TimedRegion&) = delete;

 private:
  MemorySampler& sampler_;
};

}  // namespace quadbench
