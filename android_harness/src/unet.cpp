#include "unet.hpp"

#include "errors.hpp"
#include "fields.hpp"

namespace quadbench {
namespace {

constexpr const char* kLoraPrefix = "lora.";
constexpr const char* kSample = "sample";

std::vector<Buffer> buffers_of(const std::vector<TensorInfo>& infos) {
  std::vector<Buffer> buffers;
  for (const TensorInfo& info : infos) buffers.emplace_back(info.bytes());
  return buffers;
}

TensorInfo floats(const char* name, const Shape& shape) { return {.name = name, .dtype = DType::kFloat32, .shape = shape}; }

}  // namespace

UNet::UNet(Session session, const Dimensions& dimensions, std::size_t adapter_cache_bytes)
    : session_(std::move(session)),
      sample_(input(kSample).bytes()),
      conditions_(condition_inputs()),
      condition_buffers_(buffers_of(conditions_)),
      eps_(input(kSample).bytes()),
      adapters_(lora_inputs(), [this] { return bind_data(); }, adapter_cache_bytes) {
  const std::string& graph = session_.name();
  require_tensor(graph, input(kSample), floats(kSample, dimensions.latent));
  if (session_.outputs().size() != 1) {
    throw InputError(graph, graph + ": has " + std::to_string(session_.outputs().size()) + " outputs, expected only eps");
  }
  require_tensor(graph, session_.outputs()[0], floats("eps", dimensions.latent));
}

const TensorInfo& UNet::input(const std::string& name) const {
  std::vector<std::string> names;
  for (const TensorInfo& info : session_.inputs()) {
    if (info.name == name) return info;
    if (!info.name.starts_with(kLoraPrefix)) names.push_back(info.name);
  }
  throw InputError(session_.name(),
                   session_.name() + ": has no input '" + name + "'; besides LoRA inputs it has " + joined(names));
}

std::vector<TensorInfo> UNet::condition_inputs() const {
  std::vector<TensorInfo> inputs;
  for (const TensorInfo& info : session_.inputs()) {
    if (info.name == kSample || info.name.starts_with(kLoraPrefix)) continue;
    if (info.dtype != DType::kFloat32 || info.shape.size() < 2 || info.shape[0] != 1) {
      throw InputError(session_.name(),
                       session_.name() + ": input '" + info.name + "' is " + info.kind() + ", expected float32 (1, ...)");
    }
    inputs.push_back(info);
  }
  return inputs;
}

std::vector<TensorInfo> UNet::lora_inputs() const {
  std::vector<TensorInfo> inputs;
  for (const TensorInfo& info : session_.inputs()) {
    if (!info.name.starts_with(kLoraPrefix)) continue;
    require_lora_input(session_.name(), info);
    inputs.push_back(info);
  }
  return inputs;
}

Binding UNet::bind_data() {
  Binding binding = session_.binding();
  binding.input(input(kSample), sample_.bytes());
  for (std::size_t i = 0; i < conditions_.size(); ++i) binding.input(conditions_[i], condition_buffers_[i].bytes());
  binding.output(session_.outputs()[0], eps_.bytes());
  return binding;
}

}  // namespace quadbench
