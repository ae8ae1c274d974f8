"""Inputs: a recipe's task -> files, prompts and names of its inputs. It takes no torch, since the bundle's digest reads them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from quadbench import zoo
from quadbench.artifacts.names import FileName, RelativePath
from quadbench.errors import UserError
from quadbench.recipe import BuiltinInputs, FolderInputs, Task, TextToImageTask
from quadbench.spec import read_json, require_file

_HINT = "docs/recipe.md shows what the folder holds"
_MOST_PICTURE_BYTES = 64 * 2**20  # an uncompressed one of 4096 x 4096 pixels takes less
_ENDINGS = ("", ".mask", ".blend", ".truth")  # the files of an item in a bundle


class _Entry(BaseModel):
    """An input as `inputs.json` lists it. Files are relative to its folder."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: FileName
    image: RelativePath | None = None
    mask: RelativePath | None = None
    truth: RelativePath | None = None
    prompt: str
    negative_prompt: str = ""


def read_inputs(task: Task) -> tuple[zoo.TaskInput, ...]:
    """Return the task's inputs: built-in ones, those of a folder with `inputs.json`, or its own prompts, numbered.

    Raises:
        UserError: `inputs.json` cannot be read or is wrong, two inputs have one name, or a file that it names cannot be read.
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


def evaluated(task: Task, count: int, *, calibration_samples: int) -> int:
    """Return how many of a task's inputs are evaluated: those that do not calibrate; prompts do both.

    Raises:
        UserError: none is left.
    """
    left = count if isinstance(task, TextToImageTask) else count - calibration_samples
    if left <= 0:
        raise UserError(
            f"task '{task.name}' has {count} inputs, calibration takes {calibration_samples}; none is left to evaluate",
            hint="add inputs, or lower quad.calibration.samples",
        )
    return left


def _from_prompt(name: str, prompt: str) -> zoo.TaskInput:
    """Return an input that is a prompt alone."""
    return zoo.TaskInput(name=name, image=None, mask=None, truth=None, prompt=prompt, negative_prompt="")


def _folder_inputs(folder: Path) -> tuple[zoo.TaskInput, ...]:
    """Read the folder's `inputs.json`."""
    listing = folder / "inputs.json"
    try:
        entries = TypeAdapter(tuple[_Entry, ...]).validate_python(read_json(listing, fault=UserError, hint=_HINT))
    except ValidationError as error:
        raise UserError(f"'{listing}': {_first_problem(error)}", hint=_HINT) from error
    _refuse_repeated(listing, entries)
    _check_files(folder, entries)
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
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def _refuse_repeated(listing: Path, entries: Sequence[_Entry]) -> None:
    """Raise UserError if files of two inputs would have one name, as those of `a.mask` and the mask of `a`."""
    names = Counter(f"{entry.name}{ending}.png" for entry in entries for ending in _ENDINGS)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        named = ", ".join(f"'{name}'" for name in twice[:5])
        raise UserError(f"'{listing}' has inputs whose files would share the names {named}; expected different names", hint=_HINT)


def _check_files(folder: Path, entries: Sequence[_Entry]) -> None:
    """Raise UserError if a listed file cannot be read, is larger than any picture, or lies elsewhere."""
    hint = f"{folder / 'inputs.json'} names it; {_HINT}"
    for entry in entries:
        for kind, file in (("image", entry.image), ("mask", entry.mask), ("truth", entry.truth)):
            if file:
                what = f"{kind} of input '{entry.name}':"
                require_file(folder / file, what, fault=UserError, hint=hint, most_bytes=_MOST_PICTURE_BYTES)
                if not (place := (folder / file).resolve()).is_relative_to(folder.resolve()):
                    raise UserError(f"{what} '{folder / file}' is a link that leads out of its folder, to '{place}'", hint=hint)
