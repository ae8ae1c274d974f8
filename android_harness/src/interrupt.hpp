// Interrupt: SIGTERM and SIGINT become a flag that is asked for between runs.
#pragma once

#include <atomic>
#include <csignal>
#include <thread>

namespace quadbench {

// Must be made before any other thread, which then inherits the blocked signals.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Throws Interrupted if a signal has arrived. Cheap enough for the timed region.
  void check(const char* where) const;

 private:
  sigset_t signals_;
  std::atomic<bool> requested_ = false;
  std::thread waiter_;
};

}  // namespace quadbench
