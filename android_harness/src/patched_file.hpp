// PatchedFile: a graph's file and a patch -> another graph's file, in memory under a path of its own.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace quadbench {

class PatchedFile {
 public:
  // The patch is a safetensors file of zlib streams, each of the difference of kChunkBytes, the last one's of what is left, and of
  // a shift for each block: how much further on the base has what is added to it, modulo 256, or nothing. Throws InputError where
  // it does not give as many bytes as it says.
  PatchedFile(const std::filesystem::path& base, const std::filesystem::path& patch);
  ~PatchedFile();
  PatchedFile(const PatchedFile&) = delete;
  PatchedFile& operator=(const PatchedFile&) = delete;

  std::filesystem::path path() const;  // for as long as the object lives

 private:
  int fd_ = -1;
  std::span<std::byte> bytes_;
};

}  // namespace quadbench
