#include "session.hpp"

#include "errors.hpp"

namespace quadbench {
namespace {

std::uintmax_t graph_bytes(const std::filesystem::path& graph, const std::string& name) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(graph, error);
  if (error) throw InputError(name, name + ": cannot read '" + graph.string() + "': " + error.message());
  return bytes;
}

}  // namespace

Session::Session(std::unique_ptr<Form> form, const std::filesystem::path& graph, std::string name)
    : name_(std::move(name)),
      file_bytes_(graph_bytes(graph, name_)),
      form_(std::move(form)),
      inputs_(form_->inputs()),
      outputs_(form_->outputs()) {}

void require_static(const std::string& graph, const TensorInfo& info) {
  for (const std::int64_t size : info.shape) {
    if (size <= 0)
      throw InputError(graph, graph + ": '" + info.name + "' has shape " + to_string(info.shape) + ", expected a static shape");
  }
}

}  // namespace quadbench
