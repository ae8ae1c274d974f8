"""Inputs: a recipe's task -> files, prompts and names of its inputs. It takes no torch, since the bundle's digest reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from quadbench import zoo
from quadbench.errors import UserError
from quadbench.recipe import BuiltinInputs, FolderInputs, Task


class _Entry(BaseModel):
    """An input as `inputs.json` lists it. Files are relative to its folder."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    image: str | None = None
    mask: str | None = None
    truth: str | None = None
    prompt: str
    negative_prompt: str = ""


def read_inputs(task: Task) -> tuple[zoo.TaskInput, ...]:
    """Return the task's inputs: built-in ones, those of a folder with `inputs.json`, or its own prompts, numbered.

    Raises:
        UserError: `inputs.json` cannot be read or is wrong, or a file that it names does not exist.
    """
    match task.inputs:
        case BuiltinInputs(name=name):
            return zoo.task_inputs(name)
        case FolderInputs(path=path):
            return _folder_inputs(Path(path))
        case None:
            return tuple(_from_prompt(f"{i:03d}", prompt) for i, prompt in enumerate(task.prompts or ()))
        case _ as never:
            assert_never(never)


def _from_prompt(name: str, prompt: str) -> zoo.TaskInput:
    """Return an input that is a prompt alone."""
    return zoo.TaskInput(name=name, image=None, mask=None, truth=None, prompt=prompt, negative_prompt="")


def _folder_inputs(folder: Path) -> tuple[zoo.TaskInput, ...]:
    """Read the folder's `inputs.json`."""
    listing = folder / "inputs.json"
    try:
        entries = TypeAdapter(tuple[_Entry, ...]).validate_python(json.loads(listing.read_text()))
    except (OSError, ValueError) as error:
        reason = _first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"'{listing}': {reason}", hint="docs/recipe.md shows what the folder holds") from error
    _refuse_missing(folder, entries)
    return tuple(
        zoo.TaskInput(
            name=entry.name,
            image=folder / entry.image if entry.image else None,
            mask=folder / entry.mask if entry.mask else None,
            truth=folder / entry.truth if entry.truth else None,
            prompt=entry.prompt,
            negative_prompt=entry.negative_prompt,
        )
        for entry in entries
    )


def _first_problem(error: ValidationError) -> str:
    """Return the place of the first problem, and what is wrong there."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _refuse_missing(folder: Path, entries: Sequence[_Entry]) -> None:
    """Raise UserError if a listed file does not exist."""
    named = [file for entry in entries for file in (entry.image, entry.mask, entry.truth) if file]
    missing = [file for file in named if not (folder / file).is_file()]
    if missing:
        raise UserError(f"'{folder / 'inputs.json'}' names files that do not exist: {', '.join(missing[:5])}")
