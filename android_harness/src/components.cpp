#include "components.hpp"

#include <algorithm>

#include "clock.hpp"
#include "errors.hpp"
#include "fields.hpp"
#include "memory.hpp"

namespace quadbench {
namespace {

std::vector<std::string> names_of(const std::vector<TensorInfo>& infos) {
  std::vector<std::string> names;
  for (const TensorInfo& info : infos) names.push_back(info.name);
  return names;
}

// An empty shape takes what is there.
void require_only(const std::string& graph, const std::vector<TensorInfo>& infos, const TensorInfo& wanted, const char* what) {
  if (infos.size() != 1 || infos[0].name != wanted.name) {
    throw InputError(graph, graph + ": its " + what + " are " + joined(names_of(infos)) + ", expected only " + wanted.name);
  }
  require_tensor(graph, infos[0], wanted);
}

void require_batch(const std::string& graph, const TensorInfo& info, DType dtype, bool is_right, const char* expected) {
  if (info.dtype == dtype && is_right && info.shape[0] == 1) return;
  throw InputError(graph, graph + ": '" + info.name + "' is " + info.kind() + ", expected " + to_string(dtype) + " " + expected);
}

void require_encoder(const Session& session) {
  const std::string& graph = session.name();
  if (session.inputs().empty() || session.outputs().empty()) {
    throw InputError(graph, graph + ": has " + std::to_string(session.inputs().size()) + " inputs and " +
                                std::to_string(session.outputs().size()) + " outputs, expected at least one of each");
  }
  for (const TensorInfo& info : session.inputs()) {
    require_batch(graph, info, DType::kInt32, info.shape.size() == 2, "(1, T)");
  }
  for (const TensorInfo& info : session.outputs()) {
    require_batch(graph, info, DType::kFloat32, info.shape.size() >= 2, "(1, ...)");
  }
}

void require_rank(const std::string& graph, const TensorInfo& info, std::size_t rank) {
  if (info.shape.size() == rank && info.shape[0] == 1) return;
  throw InputError(graph, graph + ": '" + info.name + "' has shape " + to_string(info.shape) + ", expected " +
                              std::to_string(rank) + " dimensions and batch 1");
}

}  // namespace

const TensorInfo* find_tensor(const std::vector<TensorInfo>& infos, const std::string& name) {
  const auto found = std::find_if(infos.begin(), infos.end(), [&](const TensorInfo& info) { return info.name == name; });
  return found == infos.end() ? nullptr : &*found;
}

void require_tensor(const std::string& graph, const TensorInfo& found, const TensorInfo& wanted) {
  const bool same_shape = wanted.shape.empty() || found.shape == wanted.shape;
  if (found.name == wanted.name && found.dtype == wanted.dtype && same_shape) return;
  throw InputError(graph, graph + ": found '" + found.name + "' " + found.kind() + ", expected '" + wanted.name + "' " +
                              (wanted.shape.empty() ? to_string(wanted.dtype) : wanted.kind()));
}

Component::Component(Load loader, const Check& check) : loader_(std::move(loader)) {
  load();
  const Session& session = loaded_->session;
  name_ = session.name();
  file_bytes_ = session.file_bytes();
  check(session);
  inputs_ = session.inputs();
  outputs_ = session.outputs();
  for (const TensorInfo& info : inputs_) input_buffers_.emplace_back(info.bytes());
  for (const TensorInfo& info : outputs_) output_buffers_.emplace_back(info.bytes());
  bind();
}

void Component::load() {
  const std::int64_t before = rss_bytes();
  Session session = loader_();
  Binding binding = session.binding();
  held_bytes_ = std::max(held_bytes_, growth_since(before));
  loaded_.emplace(Loaded{.session = std::move(session), .binding = std::move(binding)});
  bind();
}

void Component::unload() {
  loaded_.reset();
  give_memory_back();
}

void Component::bind() {
  for (std::size_t i = 0; i < inputs_.size(); ++i) loaded_->binding.input(inputs_[i], input_buffers_[i].bytes());
  for (std::size_t i = 0; i < outputs_.size(); ++i) loaded_->binding.output(outputs_[i], output_buffers_[i].bytes());
}

std::uintmax_t Components::file_bytes() const {
  std::uintmax_t bytes = 0;
  const auto add = [&](const Component& component) { bytes += component.is_loaded() ? component.file_bytes() : 0; };
  for (const Component& encoder : encoders) add(encoder);
  if (vae_encoder) add(*vae_encoder);
  add(vae_decoder);
  return bytes;
}

MemoryBudget::MemoryBudget(Components& components, std::optional<std::size_t> bytes) : bytes_(bytes) {
  for (Component& encoder : components.encoders) components_.push_back(&encoder);
  components_.push_back(&components.vae_decoder);
  if (components.vae_encoder) components_.push_back(&*components.vae_encoder);
}

void MemoryBudget::set_unet_bytes(std::size_t bytes) {
  unet_bytes_ = bytes;
  if (bytes_) unload_others(*components_.back(), 0);
}

std::int64_t MemoryBudget::require(Component& component) {
  if (!bytes_) return 0;
  std::rotate(std::find(components_.begin(), components_.end(), &component),
              std::find(components_.begin(), components_.end(), &component) + 1, components_.end());
  if (component.is_loaded()) return 0;
  const std::int64_t begin = now_ns();
  unload_others(component, component.held_bytes());
  component.load();
  return now_ns() - begin;
}

std::size_t MemoryBudget::held_bytes() const {
  std::size_t bytes = unet_bytes_;
  for (const Component* component : components_) bytes += component->is_loaded() ? component->held_bytes() : 0;
  return bytes;
}

void MemoryBudget::unload_others(const Component& wanted, std::size_t more) {
  for (Component* component : components_) {
    if (held_bytes() + more <= *bytes_) return;
    if (component != &wanted && component->is_loaded()) component->unload();
  }
}

Component prompt_encoder(Component::Load loader) { return Component(std::move(loader), require_encoder); }

Component vae_encoder(Component::Load loader, const Dimensions& dimensions) {
  return Component(std::move(loader), [&](const Session& session) {
    require_only(session.name(), session.inputs(), {.name = "image", .dtype = DType::kFloat32, .shape = dimensions.image}, "inputs");
    require_only(session.name(), session.outputs(), {.name = "latent", .dtype = DType::kFloat32, .shape = dimensions.latent},
                 "outputs");
  });
}

Component vae_decoder(Component::Load loader) {
  return Component(std::move(loader), [](const Session& session) {
    const std::string& name = session.name();
    require_only(name, session.inputs(), {.name = "latent", .dtype = DType::kFloat32, .shape = {}}, "inputs");
    require_only(name, session.outputs(), {.name = "image", .dtype = DType::kFloat32, .shape = {}}, "outputs");
    require_rank(name, session.inputs()[0], 4);
    require_rank(name, session.outputs()[0], 4);
    if (session.outputs()[0].shape[1] != 3) {
      throw InputError(name, name + ": 'image' has shape " + to_string(session.outputs()[0].shape) + ", expected 3 channels");
    }
  });
}

Dimensions dimensions_of(const std::vector<Component>& encoders, const Component& vae_decoder) {
  Dimensions dimensions{
      .image = vae_decoder.outputs()[0].shape, .latent = vae_decoder.inputs()[0].shape, .tokens = {}, .encoded = {}};
  for (const Component& encoder : encoders) {
    dimensions.tokens.insert(dimensions.tokens.end(), encoder.inputs().begin(), encoder.inputs().end());
    for (const TensorInfo& output : encoder.outputs()) {
      if (find_tensor(dimensions.encoded, output.name) != nullptr) {
        throw InputError(encoder.name(), encoder.name() + ": has the output '" + output.name + "', as another encoder does");
      }
      dimensions.encoded.push_back(output);
    }
  }
  return dimensions;
}

}  // namespace quadbench
