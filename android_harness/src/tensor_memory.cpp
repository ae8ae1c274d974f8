#include "tensor_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>

namespace quadbench {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kLarge = 256 << 10;  // smaller blocks are malloc's

std::size_t whole_pages(std::size_t bytes) {
  static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

char* map_pages(std::size_t bytes) {
  void* pages = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? nullptr : static_cast<char*>(pages);
}

}  // namespace

TensorMemory::~TensorMemory() {
  clear();
  for (const auto& [first, bytes] : used_) ::munmap(first, bytes);
}

void* TensorMemory::allocate(std::size_t bytes) {
  if (bytes < kLarge) {
    void* block = nullptr;
    return ::posix_memalign(&block, kAlignment, std::max<std::size_t>(bytes, 1)) == 0 ? block : nullptr;
  }
  if (bytes > SIZE_MAX / 2) return nullptr;
  const std::size_t size = whole_pages(bytes);
  const std::lock_guard lock(mutex_);
  char* first = take_kept(size);
  if (first == nullptr) first = grow_kept(size);
  if (first == nullptr) {
    const std::size_t most = std::max(most_used_bytes_, used_bytes_ + size);
    drop_kept(most - used_bytes_ - size);
    first = map_pages(size);
    if (first == nullptr) return nullptr;
  }
  used_.emplace(first, size);
  used_bytes_ += size;
  most_used_bytes_ = std::max(most_used_bytes_, used_bytes_);
  drop_kept(most_used_bytes_ - used_bytes_);
  return first;
}

void TensorMemory::free(void* block) {
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(static_cast<char*>(block));
  if (found == used_.end()) return std::free(block);
  used_bytes_ -= found->second;
  kept_bytes_ += found->second;
  auto kept = kept_.insert(used_.extract(found)).position;
  if (const auto next = std::next(kept); next != kept_.end() && kept->first + kept->second == next->first) {
    kept->second += next->second;
    kept_.erase(next);
  }
  if (kept == kept_.begin()) return;
  if (const auto before = std::prev(kept); before->first + before->second == kept->first) {
    before->second += kept->second;
    kept_.erase(kept);
  }
}

void TensorMemory::clear() {
  const std::lock_guard lock(mutex_);
  drop_kept(0);
}

std::size_t TensorMemory::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_;
}

std::size_t TensorMemory::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_bytes_;
}

// The first pages of the smallest kept block that is large enough.
char* TensorMemory::take_kept(std::size_t bytes) {
  auto best = kept_.end();
  for (auto block = kept_.begin(); block != kept_.end(); ++block) {
    if (block->second >= bytes && (best == kept_.end() || block->second < best->second)) best = block;
  }
  if (best == kept_.end()) return nullptr;
  const auto [first, size] = *best;
  kept_.erase(best);
  if (size > bytes) kept_.emplace(first + bytes, size - bytes);
  kept_bytes_ -= bytes;
  return first;
}

// The largest kept block with pages added, of which only the added ones are new.
char* TensorMemory::grow_kept(std::size_t bytes) {
  const auto largest = std::max_element(kept_.begin(), kept_.end(), [](auto& a, auto& b) { return a.second < b.second; });
  if (largest == kept_.end()) return nullptr;
  const auto [first, size] = *largest;
  void* grown = ::mremap(first, size, bytes, MREMAP_MAYMOVE);
  if (grown == MAP_FAILED) return nullptr;  // as where two mappings lie side by side
  kept_.erase(largest);
  kept_bytes_ -= size;
  return static_cast<char*>(grown);
}

// The smallest blocks go first, as each needs a call.
void TensorMemory::drop_kept(std::size_t most_bytes) {
  while (kept_bytes_ > most_bytes) {
    const auto least = std::min_element(kept_.begin(), kept_.end(), [](auto& a, auto& b) { return a.second < b.second; });
    const std::size_t bytes = std::min(least->second, whole_pages(kept_bytes_ - most_bytes));
    ::munmap(least->first + least->second - bytes, bytes);
    kept_bytes_ -= bytes;
    if ((least->second -= bytes) == 0) kept_.erase(least);
  }
}

TensorMemory& tensor_memory() {
  static auto* memory = new TensorMemory;  // never destroyed, as a library's own threads may outlive main
  return *memory;
}

}  // namespace quadbench
