"""Recipe: the YAML description of a benchmark, with the models and LoRA adapters to build and the measurements to take."""

from quadbench.recipe.recipe import Measure, Recipe, RunSettings, recipe_digest
from quadbench.recipe.settings import Runtime
from quadbench.recipe.tasks import CheckpointFoundation, Task, mix_name

__all__ = ["CheckpointFoundation", "Measure", "Recipe", "RunSettings", "Runtime", "Task", "mix_name", "recipe_digest"]
