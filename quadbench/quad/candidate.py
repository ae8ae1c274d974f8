"""Candidate: an adapter to be added to a bundle, its name and its optional task. This module does not import torch."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from quadbench.errors import UserError
from quadbench.quad.model_files import DIFFUSERS_TENSORS, PEFT_TENSORS
from quadbench.recipe import Recipe
from quadbench.spec.spec_model import MAX_NAME_LENGTH


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A request for a new task that copies a bundle's task `like` and uses an added adapter. `recipe` built the bundle."""

    recipe: Recipe
    like: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An adapter file to be added to a bundle. `task` is a new task that uses the adapter, or None. If `name` is None, the
    adapter is named after its file. `weight` is the largest factor by which any task multiplies the adapter.
    """

    source: Path
    name: str | None = None
    weight: float = 1.0
    unet_only: bool = False
    task: NewTask | None = None


def adapter_name(source: Path, *, hint: str) -> str:
    """Return an adapter name, `pixel-art` for file `Pixel Art.safetensors`. Raise UserError if no letter or digit is left."""
    name = name_after(source)
    if not name:
        raise UserError(f"the name of '{source}' has no letters or digits for an adapter name", hint=hint)
    return name


def name_after(source: Path) -> str:
    """Derive an adapter name from a file's or folder's name. If PEFT or diffusers prescribes the file's name, use the parent
    folder's name. Return an empty string if the name has no letters or digits.
    """
    if os.path.isdir(source):  # noqa: PTH112  (it raises nothing)
        stem = source.resolve().name
    else:
        stem = source.resolve().parent.name if source.name in (PEFT_TENSORS, DIFFUSERS_TENSORS) else source.stem
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:MAX_NAME_LENGTH].rstrip("-")
