#include "table.hpp"

#include "errors.hpp"
#include "fields.hpp"

namespace quadbench {
namespace {

Mix mix(const Field& field) {
  field.require_keys({"latent", "noise"});
  return {.latent = field.at("latent").number(), .noise = field.at("noise").number()};
}

Step step(const Field& field, std::size_t index, bool inpaint) {
  field.require_keys({"input_scale", "x_start", "x", "eps", "noise", "known"});
  Step step;
  step.input_scale = field.at("input_scale").number();
  step.x_start = field.at("x_start").number();
  step.x = field.at("x").number();
  step.eps = field.at("eps").numbers();
  step.noise = field.at("noise").number();
  if (inpaint) step.known = mix(field.at("known"));
  if (step.eps.size() != index + 1) {
    field.at("eps").fail("an array of " + std::to_string(index + 1) + ": eps_0 to eps_" + std::to_string(index));
  }
  return step;
}

}  // namespace

Table parse_table(std::string_view json, const std::string& name, bool inpaint) {
  const Document parsed(json, name);
  const Field document = parsed.root(name);
  document.require_keys({"schema_version", "scheme", "timesteps", "fit_error", "start", "steps"});
  document.at("schema_version").integer(1, 1);

  Table table{.start = mix(document.at("start")), .steps = {}};
  for (const Field& field : document.at("steps").items()) table.steps.push_back(step(field, table.steps.size(), inpaint));
  const Field timesteps = document.at("timesteps");
  if (table.steps.empty()) document.at("steps").fail("at least one step");
  if (timesteps.items().size() != table.steps.size()) {
    timesteps.fail(std::to_string(table.steps.size()) + " time steps, one for each entry of steps");
  }
  return table;
}

}  // namespace quadbench
