"""A recipe is the YAML file that describes a benchmark: models and LoRA adapters to build, and measurements to take.

recipe.py    a recipe's keys; launches, iterations, baselines; loading with overrides; digest; schema
tasks.py     sources of models, adapters and inputs; samplers; adapter weights; strength
settings.py  bit widths, calibration, LoRA profile, distillation, gate limits, threads, memory budget
published/   the paper's figures, which reports show beside measured ones
"""

from quadbench.recipe.recipe import Measure, Recipe, RunSettings, recipe_digest
from quadbench.recipe.settings import Runtime
from quadbench.recipe.tasks import CheckpointFoundation, Task, mix_name

__all__ = ["CheckpointFoundation", "Measure", "Recipe", "RunSettings", "Runtime", "Task", "mix_name", "recipe_digest"]
