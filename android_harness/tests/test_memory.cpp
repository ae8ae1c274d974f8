#include <doctest/doctest.h>

#include <malloc.h>
#include <sys/resource.h>

#include <cstring>
#include <memory>
#include <sstream>
#include <vector>

#include "errors.hpp"
#include "memory.hpp"

using namespace quadbench;

// Another allocator has no such limits.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OTHER_ALLOCATOR
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OTHER_ALLOCATOR
#endif
#if defined(__GLIBC__) && !defined(OTHER_ALLOCATOR)

static long faults() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// As a run of a graph without an arena does: many blocks, written to, all of them freed at its end.
static long faults_of_a_run() {
  constexpr std::size_t kBlock = 1 << 20;
  const long before = faults();
  std::vector<std::unique_ptr<char[]>> blocks;
  for (int i = 0; i < 40; ++i) {
    blocks.emplace_back(new char[kBlock]);
    std::memset(blocks.back().get(), i, kBlock);
  }
  return faults() - before;
}

TEST_CASE("memory that a run frees is there for the next one") {
  ::mallopt(M_MMAP_THRESHOLD, 128 << 10);  // glibc's limits at the start of a process
  ::mallopt(M_TRIM_THRESHOLD, 128 << 10);
  faults_of_a_run();
  const long without = faults_of_a_run();
  keep_freed_memory();
  faults_of_a_run();
  CHECK(without > 1000);
  CHECK(faults_of_a_run() <= without / 100);
}

#endif

TEST_CASE("memory that cannot be read is an error, not 0") {
  std::istringstream nothing;
  CHECK_THROWS_AS(rss_by_region(nothing, {}), RunError);
}

TEST_CASE("a file with code is a library by its mapping, not by its name") {
  std::istringstream smaps(
      "7f00-7f10 r--p 00000000 08:01 7   /objects/5f1c\nRss:   8 kB\nAnonymous:   0 kB\n"
      "7f10-7f20 r-xp 00010000 08:01 7   /objects/5f1c\nRss:  20 kB\nAnonymous:   0 kB\n"
      "7f20-7f30 rw-p 00020000 08:01 7   /objects/5f1c\nRss:   4 kB\nAnonymous:   4 kB\n"
      "7f40-7f50 r--p 00000000 08:01 8   /objects/a0b1\nRss: 100 kB\nAnonymous:   0 kB\n"
      "7f60-7f70 r--p 00000000 08:01 9   /data/x-xp.so.bin\nRss:  16 kB\nAnonymous:   0 kB\n"
      "7f80-7f90 rw-p 00000000 00:00 0 \nRss:  32 kB\nAnonymous:  32 kB\n");
  const auto regions = rss_by_region(smaps, {"/objects/a0b1"});
  CHECK(regions.at("libraries") == 28 * 1024);
  CHECK(regions.at("graphs") == 100 * 1024);
  CHECK(regions.at("other") == 16 * 1024);
  CHECK(regions.at("anonymous") == 36 * 1024);
  CHECK(regions.at("dma_buf") == 0);
}
