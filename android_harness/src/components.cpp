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

const TensorInfo& only(const std::string& graph, const std::vector<TensorInfo>& infos, const std::string& name,
                       const char* what) {
  if (infos.size() != 1 || infos[0].name != name) {
    throw InputError(graph, graph + ": its " + what + " are " + joined(names_of(infos)) + ", expected only " + name);
  }
  return infos[0];
}

void require_rank(const std::string& graph, const TensorInfo& info, std::size_t rank) {
  if (info.shape.size() == rank && info.shape[0] == 1) return;
  throw InputError(graph, graph + ": '" + info.name + "' has shape " + to_string(info.shape) + ", expected " +
                              std::to_string(rank) + " dimensions and batch 1");
}

}  // namespace

void require_tensor(const std::string& graph, const TensorInfo& found, const TensorInfo& wanted) {
  const bool same_shape = wanted.shape.empty() || found.shape == wanted.shape;
  if (found.name == wanted.name && found.dtype == wanted.dtype && same_shape) return;
  throw InputError(graph, graph + ": found '" + found.name + "' " + found.kind() + ", expected '" + wanted.name + "' " +
                              (wanted.shape.empty() ? to_string(wanted.dtype) : wanted.kind()));
}

Component::Component(Load loader, const TensorInfo& input, const TensorInfo& output)
    : loader_(std::move(loader)), input_(0), output_(0) {
  load();
  const Session& session = loaded_->session;
  name_ = session.name();
  file_bytes_ = session.file_bytes();
  input_info_ = only(name_, session.inputs(), input.name, "inputs");
  output_info_ = only(name_, session.outputs(), output.name, "outputs");
  require_tensor(name_, input_info_, input);
  require_tensor(name_, output_info_, output);
  input_ = Buffer(input_info_.bytes());
  output_ = Buffer(output_info_.bytes());
  bind();
}

void Component::load() {
  const std::int64_t before = rss_bytes();
  Session session = loader_();
  Binding binding = session.binding();
  held_bytes_ = std::max(held_bytes_, growth_since(before));
  loaded_.emplace(Loaded{.session = std::move(session), .binding = std::move(binding)});
  if (input_.size() > 0) bind();
}

void Component::unload() {
  loaded_.reset();
  give_memory_back();
}

void Component::bind() {
  loaded_->binding.input(input_info_, input_.bytes());
  loaded_->binding.output(output_info_, output_.bytes());
}

std::uintmax_t Components::file_bytes() const {
  std::uintmax_t bytes = 0;
  for (const Component* component : {&text_encoder, vae_encoder ? &*vae_encoder : nullptr, &vae_decoder}) {
    if (component != nullptr && component->is_loaded()) bytes += component->file_bytes();
  }
  return bytes;
}

MemoryBudget::MemoryBudget(Components& components, std::optional<std::size_t> bytes) : bytes_(bytes) {
  components_ = {&components.text_encoder, &components.vae_decoder};
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

Component text_encoder(Component::Load loader) {
  Component component(std::move(loader), {.name = "input_ids", .dtype = DType::kInt32, .shape = {}},
                      {.name = "encoder_hidden_states", .dtype = DType::kFloat32, .shape = {}});
  require_rank(component.name(), component.input_info(), 2);
  require_rank(component.name(), component.output_info(), 3);
  return component;
}

Component vae_encoder(Component::Load loader, const Dimensions& dimensions) {
  return Component(std::move(loader), {.name = "image", .dtype = DType::kFloat32, .shape = dimensions.image},
                   {.name = "latent", .dtype = DType::kFloat32, .shape = dimensions.latent});
}

Component vae_decoder(Component::Load loader) {
  Component component(std::move(loader), {.name = "latent", .dtype = DType::kFloat32, .shape = {}},
                      {.name = "image", .dtype = DType::kFloat32, .shape = {}});
  const std::string& name = component.name();
  require_rank(name, component.input_info(), 4);
  require_rank(name, component.output_info(), 4);
  if (component.output_info().shape[1] != 3) {
    throw InputError(name, name + ": 'image' has shape " + to_string(component.output_info().shape) + ", expected 3 channels");
  }
  return component;
}

Dimensions dimensions_of(const Component& text_encoder, const Component& vae_decoder) {
  const TensorInfo& context = text_encoder.output_info();
  if (context.shape[1] != text_encoder.input_info().shape[1]) {
    throw InputError("text_encoder", "text_encoder: 'input_ids' is " + text_encoder.input_info().kind() +
                                         ", but 'encoder_hidden_states' is " + context.kind());
  }
  return {.image = vae_decoder.output_info().shape,
          .latent = vae_decoder.input_info().shape,
          .tokens = text_encoder.input_info().shape,
          .context = context.shape};
}

}  // namespace quadbench
