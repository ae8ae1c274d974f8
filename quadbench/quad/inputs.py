"""Inputs: reading a recipe's evaluation inputs, and checking a recipe's files before a build, without importing torch."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, assert_never

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from quadbench import zoo
from quadbench.artifacts.pixels import Pixels, read_pixels
from quadbench.artifacts.safe_text import FileName, RelativePath
from quadbench.errors import QuadbenchError, UnknownNameError, UserError
from quadbench.quad.model_family import ModelConfigs, check_adapter_family, check_schedules, read_model
from quadbench.quad.model_files import AdapterSource, ModelSizes, adapter_source, check_adapter, known_sizes
from quadbench.recipe import Recipe, Task, tasks
from quadbench.recipe.recipe import load_recipe
from quadbench.recipe.settings import MIN_DISTILL_SAMPLES
from quadbench.spec import read_json
from quadbench.spec.files import require_file
from quadbench.target.profile import profile_names

_HINT = "see docs/recipe.md for the format of the folder"
_PICTURE_HINT = "see docs/recipe.md for the supported images"
_MAX_PICTURE_BYTES = 64 * 2**20  # more than an uncompressed image of 4096 x 4096 pixels
_ENDINGS = ("", ".mask", ".blend", ".truth")  # the files of an evaluation input in a bundle
MASKED_FROM = 127.5
"""Mask values from here to 255 mark pixels to replace."""


class _Entry(BaseModel):
    """One evaluation input in a folder's `inputs.json`, with file paths relative to that folder."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: FileName
    image: RelativePath | None = None
    mask: RelativePath | None = None
    truth: RelativePath | None = None
    prompt: Annotated[str, Field(max_length=tasks.MAX_PROMPT_CHARACTERS)]
    negative_prompt: Annotated[str, Field(max_length=tasks.MAX_PROMPT_CHARACTERS)] | None = None


def read_inputs(task: Task) -> tuple[zoo.TaskInput, ...]:
    """Return a tuple of a task's TaskInputs: its built-in set or folder, or else one input per prompt, named `000`, `001`, ..."""
    match task.inputs:
        case tasks.BuiltinInputs(name=name):
            return zoo.task_inputs(name)
        case tasks.FolderInputs(path=path):
            return _folder_inputs(Path(path))
        case None:
            blank = zoo.TaskInput(name="", image=None, mask=None, truth=None, prompt="", negative_prompt=None)
            return tuple(replace(blank, name=f"{i:03d}", prompt=prompt) for i, prompt in enumerate(task.prompts or ()))
        case _ as never:
            assert_never(never)


def evaluation_count(task: Task, count: int, *, calibration_samples: int) -> int:
    """Return how many of `count` inputs are for evaluation: all for text-to-image, else `count` minus `calibration_samples`."""
    left = count if isinstance(task, tasks.TextToImageTask) else count - calibration_samples
    if left <= 0:
        raise UserError(
            f"task '{task.name}' has {count} inputs and calibration uses {calibration_samples}; no input is left for evaluation",
            hint="add inputs, or lower quad.calibration.samples",
        )
    return left


def read_pictures(task: Task, entry: zoo.TaskInput, *, sizes: ModelSizes) -> tuple[Pixels | None, Pixels | None]:
    """Return (image, mask) as uint8 (H, W, 3) and (H, W), None where a task needs none. Refuse an unusable ground-truth image."""
    image_path = None if isinstance(task, tasks.TextToImageTask) else _needed(task, entry, "image", entry.image)
    mask_path = _needed(task, entry, "mask", entry.mask) if isinstance(task, tasks.InpaintTask) else None
    if entry.truth:
        read_picture(entry.truth, "RGB", sizes.image)  # later compared with a device's image
    image = np.asarray(read_picture(image_path, "RGB", sizes.image)) if image_path else None
    mask = np.asarray(read_picture(mask_path, "L", sizes.image)) if mask_path else None
    scale = sizes.image // sizes.latent
    if mask is not None and not (mask[::scale, ::scale] >= MASKED_FROM).any():  # nearest-neighbour downsampling as in diffusers
        reduced = f"mask '{mask_path}' has no white pixel at the latent size {sizes.latent}x{sizes.latent}"
        raise UserError(
            f"input '{entry.name}' of task '{task.name}': {reduced}", hint="draw the white area larger; white pixels are replaced"
        )
    return image, mask


def read_picture(path: Path, mode: str, size: int) -> Image.Image:
    """Read an image file as 8-bit pixels, in mode RGB or L (grey). Raise UserError unless it is `size` x `size` pixels."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow warns of files that it reads or refuses anyway
            pixels = read_pixels(path, mode)
    except (OSError, ValueError) as error:
        raise UserError(f"image '{path}' cannot be read: {error}", hint=_PICTURE_HINT) from error
    height, width = pixels.shape[:2]
    if (width, height) != (size, size):
        raise UserError(f"image '{path}' is {width}x{height}; the model takes {size}x{size}", hint="resize the image first")
    return Image.fromarray(pixels)


def _needed(task: Task, entry: zoo.TaskInput, kind: str, path: Path | None) -> Path:
    if path is None:
        raise UserError(f"input '{entry.name}' of task '{task.name}' has no {kind}; {task.kind} needs one")
    return path


def _folder_inputs(folder: Path) -> tuple[zoo.TaskInput, ...]:
    listing = folder / "inputs.json"
    try:
        entries = TypeAdapter(tuple[_Entry, ...]).validate_python(read_json(listing, fault=UserError, hint=_HINT))
    except ValidationError as error:
        first = error.errors()[0]
        place, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise UserError(f"'{listing}': {place}: {reason}", hint=_HINT) from error
    names = Counter(f"{entry.name}{ending}.png" for entry in entries for ending in _ENDINGS)  # `a.mask` is also the mask of `a`
    if twice := [name for name, count in names.items() if count > 1]:
        named = ", ".join(f"'{name}'" for name in twice[:5])
        raise UserError(f"'{listing}' has inputs whose files would share the names {named}; expected different names", hint=_HINT)
    return tuple(zoo.TaskInput(**entry.model_dump() | _pictures(folder, entry)) for entry in entries)


def _pictures(folder: Path, entry: _Entry) -> dict[str, Path]:
    """Return a dict from `image`, `mask`, `truth` (those listed) to paths. Raise UserError unless all are files in `folder`."""
    files = {"image": entry.image, "mask": entry.mask, "truth": entry.truth}
    pictures = {kind: folder / file for kind, file in files.items() if file}
    hint = f"correct the file or its path in {folder / 'inputs.json'}; {_HINT}"
    for kind, path in pictures.items():
        what = f"{kind} of input '{entry.name}':"
        require_file(path, what, fault=UserError, hint=hint, max_bytes=_MAX_PICTURE_BYTES)
        if not (place := path.resolve()).is_relative_to(folder.resolve()):
            raise UserError(f"{what} '{path}' is a link that leads out of its folder, to '{place}'", hint=hint)
    return pictures


def read_recipe(path_or_name: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return a Recipe by file or built-in name. `changes` override values by key. Raise SpecError for unknown device profiles."""
    return load_recipe(path_or_name, changes, profiles=profile_names())


def check_references(recipe: Recipe) -> ModelConfigs:
    """Check a recipe's files: the model's family and configurations, adapters of that family, samplers that the model's schedule
    allows, enough inputs of the right size. Return the ModelConfigs. List all problems in a UserError.
    """
    sizes, samples = known_sizes(recipe.foundation), recipe.quad.calibration.samples
    sources = {name: source for name, spec in recipe.adapters.items() if (source := adapter_source(spec))}
    model: ModelConfigs | None = None
    problems: list[str] = []
    try:
        model = read_model(recipe.foundation)
        problems += check_schedules(recipe, model.scheduler)
    except QuadbenchError as error:
        problems.append(str(error))
    checks: list[Callable[[], object]] = [
        *(partial(_check_adapter, name, source, model) for name, source in sources.items()),
        *(partial(_check_inputs, task, samples, sizes) for task in recipe.tasks),
    ]
    for check in checks:
        try:
            check()
        except QuadbenchError as error:
            problems.append(str(error))
    problems += _unknown_devices(recipe)
    problems = problems or [*_undivided(recipe)]  # this check needs valid inputs
    if problems or model is None:
        raise UserError("\n".join(dict.fromkeys(problems)))  # tasks may share inputs
    return model


def check_devices(recipe: Recipe) -> None:
    """Check that a recipe's device settings name existing device profiles; list all unknown ones in a UserError."""
    if problems := list(_unknown_devices(recipe)):
        raise UserError("\n".join(problems))


def _unknown_devices(recipe: Recipe) -> Iterator[str]:
    known = profile_names() if recipe.devices else ()
    for name in recipe.devices.keys() - set(known):
        yield f"devices: {UnknownNameError('device profile', name, sorted(known))}"


def _check_adapter(name: str, source: AdapterSource, model: ModelConfigs | None) -> None:
    check_adapter(name, source)
    if model:
        check_adapter_family(name, source, model)


def _check_inputs(task: Task, calibration_samples: int, sizes: ModelSizes | None) -> None:
    inputs = read_inputs(task)
    evaluation_count(task, len(inputs), calibration_samples=calibration_samples)
    if sizes:
        for entry in inputs:
            read_pictures(task, entry, sizes=sizes)


def _undivided(recipe: Recipe) -> Iterator[str]:
    """Yield an error message per adapter to distill, if none of the adapter's tasks has 2 inputs, to train and to validate."""
    distill, samples = recipe.quad.distill, recipe.quad.calibration.samples
    for name in (distill.adapters or recipe.adapters) if distill else ():
        own = [task for task in recipe.tasks if name in task.adapter] or recipe.tasks
        if all(min(len(read_inputs(task)), samples) < MIN_DISTILL_SAMPLES for task in own):
            named = ", ".join(f"'{task.name}'" for task in own)
            yield (
                f"quad.distill: adapter '{name}' has only one input in each of its tasks, {named}; "
                f"distillation needs {MIN_DISTILL_SAMPLES}, for training and for validation"
            )
