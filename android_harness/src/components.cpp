#include "components.hpp"

#include "errors.hpp"
#include "fields.hpp"

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
    throw InputError(graph, graph + ": its " + what + " are " + joined(names_of(infos)) + ", expected " + name + " alone");
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

Component::Component(Session session, const TensorInfo& input, const TensorInfo& output)
    : session_(std::move(session)),
      input_(only(session_.name(), session_.inputs(), input.name, "inputs").bytes()),
      output_(only(session_.name(), session_.outputs(), output.name, "outputs").bytes()),
      binding_(session_.binding()) {
  require_tensor(session_.name(), input_info(), input);
  require_tensor(session_.name(), output_info(), output);
  binding_.input(input_info(), input_.bytes());
  binding_.output(output_info(), output_.bytes());
}

std::uintmax_t Components::file_bytes() const {
  return text_encoder.file_bytes() + (vae_encoder ? vae_encoder->file_bytes() : 0) + vae_decoder.file_bytes();
}

Component text_encoder(Session session) {
  const std::string name = session.name();
  Component component(std::move(session), {.name = "input_ids", .dtype = DType::kInt32, .shape = {}},
                      {.name = "encoder_hidden_states", .dtype = DType::kFloat32, .shape = {}});
  require_rank(name, component.input_info(), 2);
  require_rank(name, component.output_info(), 3);
  return component;
}

Component vae_encoder(Session session, const Dimensions& dimensions) {
  return Component(std::move(session), {.name = "image", .dtype = DType::kFloat32, .shape = dimensions.image},
                   {.name = "latent", .dtype = DType::kFloat32, .shape = dimensions.latent});
}

Component vae_decoder(Session session) {
  const std::string name = session.name();
  Component component(std::move(session), {.name = "latent", .dtype = DType::kFloat32, .shape = {}},
                      {.name = "image", .dtype = DType::kFloat32, .shape = {}});
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
