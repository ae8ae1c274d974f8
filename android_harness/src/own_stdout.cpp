#include "own_stdout.hpp"

#include <cerrno>
#include <cstddef>

#include <unistd.h>

#include "errors.hpp"

namespace quadbench {

OwnStdout::OwnStdout() : file_(::dup(STDOUT_FILENO)) {
  if (file_ < 0 || ::dup2(STDERR_FILENO, STDOUT_FILENO) < 0) throw RunError("stdout", "cannot redirect stdout to stderr");
}

OwnStdout::~OwnStdout() { ::close(file_); }

OwnStdout::int_type OwnStdout::overflow(int_type character) {
  if (traits_type::eq_int_type(character, traits_type::eof())) return traits_type::not_eof(character);
  pending_.push_back(traits_type::to_char_type(character));
  return character;
}

std::streamsize OwnStdout::xsputn(const char* text, std::streamsize size) {
  pending_.append(text, static_cast<std::size_t>(size));
  return size;
}

int OwnStdout::sync() {
  std::size_t written = 0;
  while (written < pending_.size()) {
    const ssize_t count = ::write(file_, pending_.data() + written, pending_.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    written += static_cast<std::size_t>(count);
  }
  pending_.clear();
  return 0;
}

}  // namespace quadbench
