// Tensors: element type, shape, and buffers that are aligned for vector instructions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace quadbench {

enum class DType { kFloat32, kInt32, kInt16, kInt8 };

std::string to_string(DType dtype);
std::size_t bytes_of(DType dtype);

using Shape = std::vector<std::int64_t>;

std::string to_string(const Shape& shape);  // (1, 4, 8, 8)
std::size_t elements_of(const Shape& shape);

struct TensorInfo {
  std::string name;
  DType dtype = DType::kFloat32;
  Shape shape;
  bool has_free_rank = false;  // a LoRA input that takes any rank from 0 to the shape's

  std::size_t bytes() const { return elements_of(shape) * bytes_of(dtype); }
  std::string kind() const { return to_string(dtype) + " " + to_string(shape); }
};

// Zeroed memory aligned to 64 bytes.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes);

  std::span<std::byte> bytes() { return {data_.get(), size_}; }
  std::size_t size() const { return size_; }

  template <class T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_.get()), size_ / sizeof(T)};
  }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_;
};

}  // namespace quadbench
