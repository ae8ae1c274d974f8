"""Recipe: a YAML file -> what to build and what to measure."""

from quadbench.recipe.recipe import Measure, Recipe, Terms, recipe_digest
from quadbench.recipe.settings import Runtime
from quadbench.recipe.tasks import CheckpointFoundation, Task, mix_name

__all__ = ["CheckpointFoundation", "Measure", "Recipe", "Runtime", "Task", "Terms", "mix_name", "recipe_digest"]
