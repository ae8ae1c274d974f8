#include "merger.hpp"

#include "safetensors.hpp"

namespace quadbench {

Merger::Merger(Session session, const std::filesystem::path& weights, std::size_t adapter_cache_bytes)
    : session_(std::move(session)),
      path_(weights),
      name_(weights.filename()),
      copy_(weights),
      adapters_(session_.inputs(), [this] { return bind_outputs(); }, adapter_cache_bytes) {
  for (const TensorInfo& input : session_.inputs()) require_lora_input(session_.name(), input);
}

Binding Merger::bind_outputs() {
  Binding binding = session_.binding();
  const SafeTensors file(path_);
  for (const TensorInfo& output : session_.outputs()) {
    file.require(output);
    binding.output(output, copy_.bytes().subspan(file.entries().at(output.name).begin, output.bytes()));
  }
  return binding;
}

}  // namespace quadbench
