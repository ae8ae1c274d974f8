"""Candidate: an adapter that asks for admission, and the task that it shall do. It takes no torch."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from quadbench.errors import UserError
from quadbench.quad.model_files import DIFFUSERS_TENSORS, PEFT_TENSORS
from quadbench.recipe import Recipe
from quadbench.spec.spec_model import LONGEST_NAME


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


def adapter_name(source: Path, *, hint: str) -> str:
    """Return what an adapter is called after its file: `pixel-art-v2` after `Pixel_Art v2.safetensors`."""
    name = name_after(source)
    if not name:
        raise UserError(f"no adapter's name can be made of '{source}'", hint=hint)
    return name


def name_after(source: Path) -> str:
    """Return an adapter's name after its file, or its folder where all files of a format have the same name.

    It is empty where that has none of the letters and digits of names.
    """
    if os.path.isdir(source):  # noqa: PTH112  (it raises nothing)
        stem = source.resolve().name
    else:
        stem = source.resolve().parent.name if source.name in (PEFT_TENSORS, DIFFUSERS_TENSORS) else source.stem
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:LONGEST_NAME].rstrip("-")
