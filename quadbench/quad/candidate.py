"""Candidate: an adapter that asks for admission, and the task that it shall do. It takes no torch."""

from dataclasses import dataclass
from pathlib import Path

from quadbench.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """The task that an adapter gets with its admission: as `like`, a task of the recipe of which the bundle was built."""

    recipe: Recipe
    like: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An adapter's file, and as what it shall be admitted. Without a `name` it has the file's.

    It is judged and written at `weight`, the greatest that tasks shall give it. Without a `task` no task runs it.
    """

    source: Path
    name: str | None = None
    weight: float = 1.0
    unet_only: bool = False
    task: NewTask | None = None
