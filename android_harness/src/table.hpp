// Table: a sampler as data (docs/formats.md, "Sampler tables").
#pragma once

#include <string>
#include <vector>

namespace quadbench {

// Weights of the input image's latent and of noise.
struct Mix {
  double latent = 0.0;
  double noise = 0.0;
};

struct Step {
  double input_scale = 1.0;
  double x_start = 0.0;
  double x = 0.0;
  std::vector<double> eps;  // step i: i + 1 weights, of eps_0 to eps_i
  double noise = 0.0;
  Mix known;  // what inpainting puts outside the mask
};

struct Table {
  Mix start;
  std::vector<Step> steps;
};

// `name` stands in messages. `inpaint`: every step must have `known`. Throws InputError.
Table parse_table(std::string_view json, const std::string& name, bool inpaint);

}  // namespace quadbench
