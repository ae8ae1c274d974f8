"""Quad: building a bundle (quantized graphs, adapters, task files) from a recipe, a YAML file that names model and tasks. Modules
that run without torch installed say so in their first line.

build.py            steps of a build, a bundle's tasks and baselines, caveats
prepare.py          float graphs, calibration inputs, per-graph U-Nets; results that builds share
parts.py            what builds reuse of earlier ones: float graphs, sampler runs, ranges, images
part_store.py       folders of such parts, named by digests, checked when used
model_files.py      paths and formats of models and adapters; pickles refused; safetensors headers
model_family.py     families of models and adapters by their files; others refused; schedules that samplers need
inputs.py           images, masks and prompts of tasks; checks of a recipe's files
items.py            inputs as tensors, seeds and noise; each task's sampler; calibration runs
runner.py           ONNX Runtime calls, guidance, several adapters stacked as LoRA inputs
sensitivity.py      error from rounding an adapter or a layer; choice of the anchor
divergence.py       SQNR, Jensen-Shannon divergence, Kendall's rank correlation
distill.py          training of adapters under frozen encodings; early stopping, checkpoints
held_out_inputs.py  SQNR and clipping of quantized U-Nets on evaluation inputs
reference.py        reference images by diffusers and PEFT in float32
writer.py           graphs, adapter files, images and profile.json of a bundle
cache.py            digests of a recipe; whether its bundle is already built
bundle_search.py    which stored bundle a command runs or extends by default
candidate.py        an adapter to be added: name, weight and new task
admit.py            adding an adapter to a built bundle: judgement, smaller weights, new task
new_recipe.py       YAML text of `quadbench recipe new`
model/              foundation models in float, exported to ONNX with LoRA inputs
quantize/           ranges, encodings, QDQ graphs, 8-bit layers, merged-at-load U-Net
adapters/           LoRA files, shared LoRA encodings, judgement, inspection, conversion
families/           parts, text encoders, conditions and pipelines of each family of models
samplers/           LCM, TCD, OLSS, Euler and DDIM as tables of coefficients; noise schedules
"""
