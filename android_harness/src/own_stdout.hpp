// Own stdout: the program's alone. Vendors' libraries print to stdout too, and from here on what they print goes to stderr.
#pragma once

#include <ostream>
#include <streambuf>
#include <string>

namespace quadbench {

class OwnStdout : private std::streambuf {
 public:
  OwnStdout();  // throws RunError
  ~OwnStdout() override;

  std::ostream& stream() { return stream_; }  // writes when it is flushed

 private:
  int_type overflow(int_type character) override;
  std::streamsize xsputn(const char* text, std::streamsize size) override;
  int sync() override;

  int file_;
  std::string pending_;
  std::ostream stream_{this};
};

}  // namespace quadbench
