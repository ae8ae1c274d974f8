#include "mapped_file.hpp"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.hpp"

namespace quadbench {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const std::filesystem::path& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail_to_read(const std::filesystem::path& path) {
  throw InputError(path.string(), "cannot read '" + path.string() + "': " + std::strerror(errno));
}

std::span<std::byte> mapped(const std::filesystem::path& path, int protection) {
  const Descriptor file(path);
  struct stat status{};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) fail_to_read(path);
  if (!S_ISREG(status.st_mode)) throw InputError(path.string(), "'" + path.string() + "' is not a file");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return {};
  void* const data = ::mmap(nullptr, size, protection, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) fail_to_read(path);
  return {static_cast<std::byte*>(data), size};
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const auto bytes = mapped(path, PROT_READ);
  data_ = bytes.data();
  size_ = bytes.size();
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

FileCopy::FileCopy(const std::filesystem::path& path) {
  const auto bytes = mapped(path, PROT_READ | PROT_WRITE);
  data_ = bytes.data();
  size_ = bytes.size();
}

FileCopy::~FileCopy() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void FileCopy::revert() { ::madvise(data_, size_, MADV_DONTNEED); }

}  // namespace quadbench
