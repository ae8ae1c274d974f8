// Safetensors: a mapped file of named tensors. The whole header is checked when it is opened.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "mapped_file.hpp"
#include "tensor.hpp"

namespace quadbench {

class SafeTensors {
 public:
  explicit SafeTensors(const std::filesystem::path& path);  // throws InputError

  struct Entry {
    std::string dtype;  // as in the file: F32, I16, ...
    Shape shape;
    std::size_t begin = 0;  // in the file
    std::size_t end = 0;
  };

  const std::string& name() const { return name_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // The tensor's bytes, little-endian and row-major, not aligned. Throws InputError unless it is there with this type and shape.
  std::span<const std::byte> require(const TensorInfo& wanted) const;
  std::vector<float> read_floats(const std::string& tensor, const Shape& shape) const;

 private:
  const Entry& entry(const std::string& tensor) const;

  std::string name_;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace quadbench
