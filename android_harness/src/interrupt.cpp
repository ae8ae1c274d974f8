#include "interrupt.hpp"

#include <pthread.h>

#include "errors.hpp"

namespace quadbench {
namespace {

constexpr int kWake = SIGUSR1;  // ends the waiter

}  // namespace

Interrupt::Interrupt() {
  sigemptyset(&signals_);
  for (const int signal : {SIGTERM, SIGINT, kWake}) sigaddset(&signals_, signal);
  pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  waiter_ = std::thread([this] {
    int signal = 0;
    while (sigwait(&signals_, &signal) == 0 && signal != kWake) requested_ = true;
  });
}

// The signals stay blocked: one that arrives now must not take the footer's exit code.
Interrupt::~Interrupt() {
  pthread_kill(waiter_.native_handle(), kWake);
  waiter_.join();
}

void Interrupt::check(const char* where) const {
  if (requested_.load(std::memory_order_relaxed)) throw Interrupted(where);
}

}  // namespace quadbench
