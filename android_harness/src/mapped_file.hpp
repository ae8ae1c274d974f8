// A file's bytes, mapped for as long as the object lives: read-only, or as a copy that takes memory where it is written to.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace quadbench {

class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);  // throws InputError
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// What is written to it is seen here alone.
class FileCopy {
 public:
  explicit FileCopy(const std::filesystem::path& path);  // throws InputError
  ~FileCopy();
  FileCopy(const FileCopy&) = delete;
  FileCopy& operator=(const FileCopy&) = delete;

  std::span<std::byte> bytes() { return {data_, size_}; }
  void revert();  // to what the file holds; gives the memory back

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace quadbench
