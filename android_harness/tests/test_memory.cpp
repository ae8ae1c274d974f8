#include <doctest/doctest.h>

#include <sys/resource.h>

#include <cstring>
#include <memory>
#include <vector>

#include "memory.hpp"

using namespace quadbench;

static long faults() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// As a run of a graph without an arena does: many blocks, written to, all of them freed at its end.
static void allocate_and_free() {
  constexpr std::size_t kBlock = 1 << 20;
  std::vector<std::unique_ptr<char[]>> blocks;
  for (int i = 0; i < 40; ++i) {
    blocks.emplace_back(new char[kBlock]);
    std::memset(blocks.back().get(), i, kBlock);
  }
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)  // whose allocator has no such limits
TEST_CASE("memory that a run frees is there for the next one") {
  allocate_and_free();
  const long before_limits = faults();
  allocate_and_free();
  const long without = faults() - before_limits;
  keep_freed_memory();
  allocate_and_free();
  const long before = faults();
  allocate_and_free();
  CHECK(without > 1000);
  CHECK(faults() - before <= without / 100);
}
#endif
