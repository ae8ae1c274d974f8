#include "tensor.hpp"

#include <cstring>
#include <new>

namespace quadbench {
namespace {

constexpr std::align_val_t kBufferAlignment{64};

}  // namespace

std::string to_string(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "float32";
    case DType::kInt32: return "int32";
    case DType::kInt16: return "int16";
    case DType::kInt8: return "int8";
  }
  return "unknown";
}

std::size_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32: return 4;
    case DType::kInt16: return 2;
    case DType::kInt8: return 1;
  }
  return 0;
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::size_t elements_of(const Shape& shape) {
  std::size_t elements = 1;
  for (const std::int64_t size : shape) elements *= static_cast<std::size_t>(size);
  return elements;
}

Buffer::Buffer(std::size_t bytes) : data_(static_cast<std::byte*>(::operator new(bytes, kBufferAlignment))), size_(bytes) {
  std::memset(data_.get(), 0, bytes);
}

void Buffer::Free::operator()(std::byte* data) const { ::operator delete(data, kBufferAlignment); }

}  // namespace quadbench
