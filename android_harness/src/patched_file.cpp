#include "patched_file.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>
#include <vector>

#include <linux/memfd.h>
#include <stb_image.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "errors.hpp"
#include "mapped_file.hpp"
#include "safetensors.hpp"

namespace quadbench {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 24;
constexpr std::size_t kBlockBytes = std::size_t{1} << 16;
constexpr std::size_t kMostPatchedBytes = std::size_t{1} << 31;
constexpr const char* kShifts = "shifts";

[[noreturn]] void fail_patch(const SafeTensors& patch, const std::string& fault) {
  throw InputError(patch.name(), "'" + patch.name() + "' " + fault);
}

std::size_t patched_bytes(const SafeTensors& patch) {
  const auto found = patch.metadata().find("bytes");
  const std::string text = found == patch.metadata().end() ? "" : found->second;
  std::size_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc{} || end != text.data() + text.size() || size == 0 || size > kMostPatchedBytes) {
    fail_patch(patch, "is no patch: its metadata has '" + text + "' bytes, expected a number from 1 to " + std::to_string(kMostPatchedBytes));
  }
  return size;
}

std::vector<std::int32_t> shifts_of_blocks(const SafeTensors& patch, std::size_t size) {
  std::vector<std::int32_t> shifts((size + kBlockBytes - 1) / kBlockBytes);
  const auto bytes = patch.require(
      {.name = kShifts, .dtype = DType::kInt32, .shape = {static_cast<std::int64_t>(shifts.size())}});
  std::memcpy(shifts.data(), bytes.data(), bytes.size());
  return shifts;
}

// Adds to a block what the base has from `begin` on, which may be before its first byte or after its last.
void add_bytes(std::span<const std::byte> base, std::int64_t begin, std::span<std::byte> block) {
  const auto inside = [&](std::int64_t k) { return std::clamp<std::int64_t>(k, 0, static_cast<std::int64_t>(block.size())); };
  const std::int64_t low = inside(-begin), high = inside(static_cast<std::int64_t>(base.size()) - begin);
  for (std::int64_t k = low; k < high; ++k) {
    block[static_cast<std::size_t>(k)] = static_cast<std::byte>(static_cast<unsigned>(block[static_cast<std::size_t>(k)]) +
                                                                static_cast<unsigned>(base[static_cast<std::size_t>(begin + k)]));
  }
}

}  // namespace

PatchedFile::PatchedFile(const std::filesystem::path& base, const std::filesystem::path& patch) {
  const SafeTensors streams(patch);
  const MappedFile below(base);
  const std::size_t size = patched_bytes(streams);
  const std::vector<std::int32_t> shifts = shifts_of_blocks(streams, size);
  // By number, as Android's library has the function from release 11 on only.
  fd_ = static_cast<int>(::syscall(SYS_memfd_create, "graph", MFD_CLOEXEC));
  void* data = MAP_FAILED;
  if (fd_ >= 0 && ::ftruncate(fd_, static_cast<off_t>(size)) == 0) {
    data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  }
  if (data == MAP_FAILED) fail_patch(streams, "cannot be applied in memory: " + std::string(std::strerror(errno)));
  bytes_ = {static_cast<std::byte*>(data), size};
  std::size_t begin = 0;
  for (const auto& [name, entry] : streams.entries()) {
    if (name == kShifts) continue;
    const auto stream = streams.require({.name = name, .dtype = DType::kInt8, .shape = entry.shape});
    const auto chunk = bytes_.subspan(begin, std::min(kChunkBytes, size - begin));
    const int written =
        ::stbi_zlib_decode_buffer(reinterpret_cast<char*>(chunk.data()), static_cast<int>(chunk.size()),
                                  reinterpret_cast<const char*>(stream.data()), static_cast<int>(stream.size()));
    if (chunk.empty() || written != static_cast<int>(chunk.size())) {
      fail_patch(streams, "is damaged: stream " + name + " does not give " + std::to_string(chunk.size()) + " bytes");
    }
    begin += chunk.size();
  }
  if (begin != size) fail_patch(streams, "gives " + std::to_string(begin) + " of " + std::to_string(size) + " bytes");
  for (std::size_t k = 0; k < shifts.size(); ++k) {
    const std::size_t block = k * kBlockBytes;
    add_bytes(below.bytes(), static_cast<std::int64_t>(block) + shifts[k], bytes_.subspan(block, std::min(kBlockBytes, size - block)));
  }
}

PatchedFile::~PatchedFile() {
  if (bytes_.data() != nullptr) ::munmap(bytes_.data(), bytes_.size());
  if (fd_ >= 0) ::close(fd_);
}

std::filesystem::path PatchedFile::path() const { return "/proc/self/fd/" + std::to_string(fd_); }

}  // namespace quadbench
