"""Zoo: the folders of the built-in model and adapters, and the evaluation inputs of the built-in tasks."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quadbench.errors import UnknownNameError

FOLDER = Path(__file__).parent
FOUNDATIONS = ("emoji-ldm",)
ADAPTERS = ("restyle", "remove-object", "sketch-to-image", "sticker", "portrait")
TASKS = ADAPTERS
TEN_TASKS = FOLDER / "ten_tasks.json"  # file sizes of the recipe `ten-tasks`, written by bench/ten_tasks.py


@dataclass(frozen=True, kw_only=True)
class TaskInput:
    """An input to evaluate a built-in task: prompt, negative prompt, up to three 64x64 PNG files. `truth` is the expected image.

    `image` (None in text-to-image) and `truth` are RGB. `mask`, only for inpainting, is grey with 255 where pixels are replaced.
    """

    name: str
    image: Path | None
    mask: Path | None
    truth: Path | None
    prompt: str
    negative_prompt: str | None


def foundation_folder(name: str) -> Path:
    """Return the folder of a built-in model. The folder has diffusers' layout."""
    return FOLDER / _known("built-in model", name, FOUNDATIONS)


def adapter_folder(name: str) -> Path:
    """Return the folder of a built-in adapter in PEFT's layout."""
    return FOLDER / "adapters" / _known("built-in adapter", name, ADAPTERS)


def task_inputs(name: str, *, folder: Path = FOLDER) -> tuple[TaskInput, ...]:
    """Return a built-in task's evaluation inputs, which were not used for training, in the order of the task's inputs.json."""
    inputs = folder / "inputs" / _known("built-in task", name, TASKS)
    return tuple(_task_input(inputs, entry) for entry in json.loads((inputs / "inputs.json").read_text()))


def _task_input(folder: Path, entry: dict[str, str | None]) -> TaskInput:
    image, mask, truth = entry["image"], entry["mask"], entry["truth"]
    return TaskInput(
        name=str(entry["name"]),
        image=folder / image if image else None,
        mask=folder / mask if mask else None,
        truth=folder / truth if truth else None,
        prompt=str(entry["prompt"]),
        negative_prompt=entry["negative_prompt"],
    )


def _known(kind: str, name: str, names: Iterable[str]) -> str:
    if name not in names:
        raise UnknownNameError(kind, name, names)
    return name
