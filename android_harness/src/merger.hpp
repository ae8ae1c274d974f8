// Merger: the file with a U-Net's weights + an adapter -> the same file with the adapter added to the weights, in memory.
#pragma once

#include <filesystem>

#include "adapter.hpp"
#include "mapped_file.hpp"
#include "session.hpp"

namespace quadbench {

class Merger {
 public:
  // `session` runs the graph that adds: LoRA inputs in, tensors of the file out. Throws InputError where these do not fit.
  Merger(Session session, const std::filesystem::path& weights, std::size_t adapter_cache_bytes);
  Merger(const Merger&) = delete;
  Merger& operator=(const Merger&) = delete;

  AdapterCache& adapters() { return adapters_; }

  // The file's content: as it is until `add` is called, with the chosen adapter from then until `forget`.
  FileInMemory content() { return {.name = name_, .bytes = copy_.bytes()}; }
  void add() { session_.run(adapters_.chosen()); }
  void forget() { copy_.revert(); }

 private:
  Binding bind_outputs();

  Session session_;
  std::filesystem::path path_;
  std::string name_;
  FileCopy copy_;
  AdapterCache adapters_;
};

}  // namespace quadbench
