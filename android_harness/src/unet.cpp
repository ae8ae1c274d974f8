#include "unet.hpp"

#include "errors.hpp"
#include "fields.hpp"

namespace quadbench {
namespace {

constexpr const char* kLoraPrefix = "lora.";

TensorInfo floats(const char* name, const Shape& shape) { return {.name = name, .dtype = DType::kFloat32, .shape = shape}; }

}  // namespace

UNet::UNet(Session session, const Dimensions& dimensions, std::size_t adapter_cache_bytes)
    : session_(std::move(session)),
      sample_(input("sample").bytes()),
      time_features_(input("time_features").bytes()),
      context_(input("encoder_hidden_states").bytes()),
      eps_(input("sample").bytes()),
      adapters_(lora_inputs(), [this] { return bind_data(); }, adapter_cache_bytes) {
  const std::string& graph = session_.name();
  require_tensor(graph, input("sample"), floats("sample", dimensions.latent));
  require_tensor(graph, input("encoder_hidden_states"), floats("encoder_hidden_states", dimensions.context));
  const auto width = static_cast<std::int64_t>(elements_of(input("time_features").shape));
  require_tensor(graph, input("time_features"), floats("time_features", {1, width}));
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

std::vector<TensorInfo> UNet::lora_inputs() const {
  std::vector<TensorInfo> inputs;
  for (const TensorInfo& info : session_.inputs()) {
    if (info.name == "sample" || info.name == "time_features" || info.name == "encoder_hidden_states") continue;
    if (!info.name.starts_with(kLoraPrefix)) {
      throw InputError(session_.name(), session_.name() + ": unknown input '" + info.name + "' " + info.kind() +
                                            ", expected sample, time_features, encoder_hidden_states and lora.*");
    }
    require_lora_input(session_.name(), info);
    inputs.push_back(info);
  }
  return inputs;
}

Binding UNet::bind_data() {
  Binding binding = session_.binding();
  binding.input(input("sample"), sample_.bytes());
  binding.input(input("time_features"), time_features_.bytes());
  binding.input(input("encoder_hidden_states"), context_.bytes());
  binding.output(session_.outputs()[0], eps_.bytes());
  return binding;
}

}  // namespace quadbench
