#include "libraries.hpp"

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstring>

namespace quadbench {
namespace {

constexpr std::size_t kMostLibraries = 256;  // that one launch tells of
constexpr std::size_t kMostBuildIdBytes = 32;

constexpr std::size_t padded(std::size_t size) { return (size + 3) / 4 * 4; }

std::string hex(const unsigned char* bytes, std::size_t size) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < size; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

// The build id among a segment's notes, which the loader has mapped.
std::string build_id_of(const unsigned char* notes, std::size_t size) {
  std::size_t at = 0;
  while (at + sizeof(ElfW(Nhdr)) <= size) {
    ElfW(Nhdr) note;
    std::memcpy(&note, notes + at, sizeof note);
    const std::size_t name = at + sizeof note;
    const std::size_t content = name + padded(note.n_namesz);
    const std::size_t end = content + padded(note.n_descsz);
    if (content < name || end < content || end > size) return "";
    const bool is_gnu = note.n_namesz == 4 && std::memcmp(notes + name, "GNU", 4) == 0;
    if (is_gnu && note.n_type == NT_GNU_BUILD_ID && note.n_descsz <= kMostBuildIdBytes) return hex(notes + content, note.n_descsz);
    at = end;
  }
  return "";
}

int add(dl_phdr_info* info, std::size_t, void* data) {
  auto& libraries = *static_cast<std::vector<LoadedLibrary>*>(data);
  // With glibc the program has no name; what is no file, as the vdso of the kernel, has no path.
  if (info->dlpi_name == nullptr || info->dlpi_name[0] != '/') return 0;
  LoadedLibrary library{.path = info->dlpi_name, .build_id = ""};
  for (int i = 0; i < info->dlpi_phnum && library.build_id.empty(); ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    library.build_id = build_id_of(reinterpret_cast<const unsigned char*>(info->dlpi_addr + segment.p_vaddr), segment.p_memsz);
  }
  libraries.push_back(std::move(library));
  return libraries.size() < kMostLibraries ? 0 : 1;
}

}  // namespace

std::vector<LoadedLibrary> loaded_libraries() {
  std::vector<LoadedLibrary> libraries;
  ::dl_iterate_phdr(add, &libraries);
  return libraries;
}

}  // namespace quadbench
