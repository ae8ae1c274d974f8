#include <doctest/doctest.h>

#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <sstream>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "memory.hpp"
#include "tensor_memory.hpp"

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

TEST_CASE("a freed block is the next one of its size") {
  TensorMemory memory;
  void* block = memory.allocate(8 << 20);
  memory.free(block);
  CHECK(memory.kept_bytes() == 8 << 20);
  CHECK(memory.allocate(8 << 20) == block);
  CHECK(memory.kept_bytes() == 0);
}

TEST_CASE("a smaller block is taken out of a kept one, and both are one again when it is freed") {
  TensorMemory memory;
  void* whole = memory.allocate(8 << 20);
  memory.free(whole);
  void* part = memory.allocate(2 << 20);
  CHECK(part == whole);
  CHECK(memory.kept_bytes() == 6 << 20);
  memory.free(part);
  CHECK(memory.allocate(8 << 20) == whole);
}

TEST_CASE("a larger block keeps the pages of a freed one") {
  TensorMemory memory;
  auto* small = static_cast<char*>(memory.allocate(4 << 20));
  std::memset(small, 7, 4 << 20);
  memory.free(small);
  const auto* large = static_cast<char*>(memory.allocate(8 << 20));
  CHECK(large[(4 << 20) - 1] == 7);
  CHECK(large[4 << 20] == 0);
}

TEST_CASE("kept and used blocks never take more than used ones took at most") {
  TensorMemory memory;
  std::mt19937 random(1);
  std::vector<void*> blocks;
  std::size_t most = 0;
  for (int i = 0; i < 3000; ++i) {
    if (blocks.size() < 20 && random() % 2 == 0) {
      const std::size_t bytes = 1 + random() % (6 << 20);
      blocks.push_back(memory.allocate(bytes));
      std::memset(blocks.back(), i, bytes);
    } else if (!blocks.empty()) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      memory.free(blocks.back());
      blocks.pop_back();
    }
    most = std::max(most, memory.used_bytes());
    REQUIRE(memory.used_bytes() + memory.kept_bytes() <= most);
  }
  CHECK(memory.kept_bytes() > 0);
  memory.clear();
  CHECK(memory.kept_bytes() == 0);
  for (void* block : blocks) memory.free(block);
  CHECK(memory.used_bytes() == 0);
}

TEST_CASE("no memory is said by a null pointer") {
  TensorMemory memory;
  CHECK(memory.allocate(SIZE_MAX) == nullptr);
  CHECK(memory.allocate(SIZE_MAX / 4) == nullptr);
  memory.free(nullptr);
}

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
