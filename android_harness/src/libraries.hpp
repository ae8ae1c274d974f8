// Libraries: this process -> the shared libraries that the loader has mapped into it, and of which build each is.
#pragma once

#include <string>
#include <vector>

namespace quadbench {

struct LoadedLibrary {
  std::string path;      // as the loader has it: as it was opened, or where its links led
  std::string build_id;  // hex of the GNU build id; empty where the library has none
};

// Every library of the process, in the loader's order; of very many the first ones. With bionic the program is among them.
std::vector<LoadedLibrary> loaded_libraries();

}  // namespace quadbench
