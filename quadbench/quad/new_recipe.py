"""New recipe: generating a recipe's commented YAML text for a model and adapter files. This module does not import torch."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from pathlib import Path

from quadbench import zoo
from quadbench.errors import UserError
from quadbench.quad.candidate import adapter_name
from quadbench.quad.model_files import SAFETENSORS, AdapterSource
from quadbench.spec import is_name
from quadbench.spec.spec_model import MAX_NAME_LENGTH

_TEXT = """\
# quadbench run {file} --devices local
#
# A minimal recipe: keys with default values are left out. docs/recipe.md describes every key.
schema_version: 1
name: {name}

foundation: {foundation}

adapters:
{adapters}

# One task for each adapter. Each prompt makes one image: write your own prompts. Tasks that start from an image need
# kind: image-to-image with strength: 0.7, or kind: inpaint, and inputs: {{source: folder, path: FOLDER}} instead of prompts.
tasks:
{tasks}

# lora: int8 halves the size of the adapters, and rounds them more coarsely.
precision: {{weights: int8, activations: {{scheme: w8a16}}, lora: int16}}

# One set of encodings for all adapters, from the ranges of all of them.
quad:
  profile: {{scheme: unified}}
  calibration: {{scheme: joint}}

# The baseline of the shared graph: one graph per task, with its adapter merged. Without a baseline, builds are faster.
baselines: [per-graph]

# Two launches of each variant give rough values; a verdict needs 12.
measure: {{launches: 2}}
"""
_TASK = """\
  - name: {name}
    kind: text-to-image
    adapter: {name}
    # The build fits this sampler to the task. Adapters that were trained for few steps need scheme: lcm.
    sampler: {{scheme: olss, steps: 8}}
    guidance: 3.0
    prompts: {prompts}"""
_PROMPTS = ("a red apple", "a house by the sea", "a smiling face")
_CAPTIONS = ("noto red apple", "noto house", "noto cat face")  # like the training captions of the built-in model


def recipe_text(path: Path, name: str, foundation: str, adapters: Sequence[AdapterSource]) -> str:
    """Return YAML text of a recipe to be saved as `path`. Paths below the folder of `path` are relative, others absolute.

    Adapters of the same name are numbered: `style`, `style-2`. Raise UserError if an adapter is given twice, or its file name has
    no letters or digits.
    """
    named: dict[str, AdapterSource] = {}
    for adapter in adapters:
        if any(adapter.path.resolve() == other.path.resolve() for other in named.values()):
            raise UserError(f"adapter '{adapter.path}' is given twice", hint="give each adapter once")
        named[_free(adapter_name(adapter.path, hint="rename the file, as recipes name adapters after files"), named)] = adapter
    prompts = _CAPTIONS if _is_builtin(foundation) else _PROMPTS
    return _TEXT.format(
        file=path.name,
        name=name,
        foundation=_foundation(foundation, path.parent),
        adapters="\n".join(f"  {each}: {_adapter(adapter, path.parent)}" for each, adapter in named.items()),
        tasks="\n".join(_TASK.format(name=each, prompts=json.dumps(prompts)) for each in named),
    )


def _free(name: str, taken: Collection[str]) -> str:
    """Return `name`, or if `taken` has it, `name` with the first free number appended: `style-2`, `style-3`, ..."""
    if name not in taken:
        return name
    numbered = (f"{name[: MAX_NAME_LENGTH - len(end)].rstrip('-')}{end}" for end in (f"-{number}" for number in count(2)))
    return next(each for each in numbered if each not in taken)


def _is_builtin(foundation: str) -> bool:
    return foundation in zoo.FOUNDATIONS and not Path(foundation).exists()


def _foundation(text: str, folder: Path) -> str:
    path = Path(text)
    if _is_builtin(text):
        return _flow({"source": "builtin", "name": text})
    source = "checkpoint" if path.suffix == SAFETENSORS else "diffusers"
    return _flow({"source": source, "path": _beside(path, folder)})


def _adapter(adapter: AdapterSource, folder: Path) -> str:
    left_out = {"unet_only": True} if adapter.unet_only else {}
    return _flow({"source": adapter.format.value, "path": _beside(adapter.path, folder), **left_out})


def _beside(path: Path, folder: Path) -> str:
    place, home = path.resolve(), folder.resolve()
    return os.path.relpath(place, home) if place.is_relative_to(home) else str(place)


def _flow(values: Mapping[str, str | bool]) -> str:
    """Return a dict as a one-line YAML mapping: plain names without quotes, paths and other values as JSON."""
    texts = {
        key: value if isinstance(value, str) and is_name(value) and key != "path" else json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
    }
    return f"{{{', '.join(f'{key}: {text}' for key, text in texts.items())}}}"
