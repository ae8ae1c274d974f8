// Memory of this process: peak since a reset, resident and proportional size, sampled by a thread that sleeps while the clock
// runs.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace quadbench {

// Sets VmHWM to the resident size of now. False where the kernel refuses; peaks then reach back to the start.
bool reset_peak_rss();

std::int64_t peak_rss_bytes();            // VmHWM; throws RunError where the kernel does not tell
std::int64_t rss_bytes();                 // VmRSS; likewise
std::optional<std::int64_t> pss_bytes();  // nothing where smaps_rollup cannot be read

struct MemorySample {
  std::int64_t rss_bytes = 0;
  std::optional<std::int64_t> pss_bytes;
};

class MemorySampler {
 public:
  explicit MemorySampler(std::chrono::milliseconds period);
  ~MemorySampler();
  MemorySampler(const MemorySampler&) = delete;
  MemorySampler& operator=(const MemorySampler&) = delete;

  // Returns when no sample is being taken, having taken the one that was due; none is taken before `resume`.
  void pause();
  void resume();
  std::vector<MemorySample> drain();  // those since the last call

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
