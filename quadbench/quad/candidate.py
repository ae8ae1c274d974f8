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
    """A request for a new task for an added adapter. It copies the task `like` of a bundle that was built from `recipe`."""

    recipe: Recipe
    like: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An adapter file to be added to a bundle, and a new task for it (None: no task). If `name` is None, the adapter is named
    after its file. `weight` is the largest factor with which any task uses the adapter.
    """

    source: Path
    name: str | None = None
    weight: float = 1.0
    unet_only: bool = False
    task: NewTask | None = None


def adapter_name(source: Path, *, hint: str) -> str:
    """Turn a file name into an adapter name: `Pixel_Art v2.safetensors` into `pixel-art-v2`. Raise if nothing remains."""
    name = name_after(source)
    if not name:
        raise UserError(f"the name of '{source}' has no letters or digits for an adapter name", hint=hint)
    return name


def name_after(source: Path) -> str:
    """Derive an adapter's name from its file name, or from its folder's name if PEFT or diffusers prescribes the file name.
    The result is empty if it would have no letters or digits.
    """
    if os.path.isdir(source):  # noqa: PTH112  (it raises nothing)
        stem = source.resolve().name
    else:
        stem = source.resolve().parent.name if source.name in (PEFT_TENSORS, DIFFUSERS_TENSORS) else source.stem
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:MAX_NAME_LENGTH].rstrip("-")
