// The memory of ONNX Runtime's tensors where no arena keeps it. Freed blocks are kept for later ones, as far as the peak allows.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>

namespace quadbench {

// Large blocks are pages mapped from the system. A page costs time when it is first touched, so freed ones are kept: with those in
// use they never take more bytes than the blocks in use took at most, so that keeping them does not raise the process's peak.
// Smaller blocks come from malloc. Used from several threads at once.
class TensorMemory {
 public:
  TensorMemory() = default;
  ~TensorMemory();
  TensorMemory(const TensorMemory&) = delete;
  TensorMemory& operator=(const TensorMemory&) = delete;

  // A block of at least that many bytes, aligned to 64; nullptr if there is no memory.
  void* allocate(std::size_t bytes);
  void free(void* block);

  // Gives the kept pages back to the system.
  void clear();

  std::size_t used_bytes() const;  // of large blocks
  std::size_t kept_bytes() const;

 private:
  using Pages = std::map<char*, std::size_t>;  // first byte to size in bytes

  char* take_kept(std::size_t bytes);
  char* grow_kept(std::size_t bytes);
  void drop_kept(std::size_t most_bytes);

  mutable std::mutex mutex_;
  Pages used_;
  Pages kept_;
  std::size_t used_bytes_ = 0;
  std::size_t kept_bytes_ = 0;
  std::size_t most_used_bytes_ = 0;
};

// The process's own, which all graphs share. It stays until the process ends.
TensorMemory& tensor_memory();

}  // namespace quadbench
