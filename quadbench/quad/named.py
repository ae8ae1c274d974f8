"""Named: a recipe -> every problem with the files that it names, before anything is read into memory or built. No torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quadbench.errors import QuadbenchError, UnknownNameError, UserError
from quadbench.quad.layouts import check_adapter, check_checkpoint, foundation_files, named_sizes
from quadbench.quad.sources import adapter_source
from quadbench.quad.tasks.inputs import evaluated, read_inputs, read_pictures
from quadbench.recipe import LEAST_DISTILL_SAMPLES, CheckpointFoundation, DiffusersFoundation, Recipe, load_recipe
from quadbench.target.profile import profile_names


def read_recipe(path_or_name: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe as `load_recipe` does, whose `devices` have to be profiles that there are.

    Raises:
        SpecError, UnknownNameError: as `load_recipe`.
    """
    return load_recipe(path_or_name, changes, profiles=profile_names())


def check_named(recipe: Recipe) -> None:
    """Check that what a recipe names is there, and that every task has inputs enough, with pictures that the model takes.

    Raises:
        UserError: a line for each problem.
    """
    problems = [*_of_foundation(recipe), *_of_adapters(recipe), *_of_inputs(recipe), *_of_devices(recipe)]
    problems = problems or [*_of_distillation(recipe)]  # which reads inputs that are right
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))  # tasks may share inputs


def check_devices(recipe: Recipe) -> None:
    """Check that there are profiles for the devices that a recipe has settings for.

    Raises:
        UserError: a line for each that there is none for.
    """
    problems = list(_of_devices(recipe))
    if problems:
        raise UserError("\n".join(problems))


def _of_devices(recipe: Recipe) -> Iterator[str]:
    known = profile_names() if recipe.devices else ()
    for name in recipe.devices.keys() - set(known):
        yield f"devices: {UnknownNameError('device profile', name, sorted(known))}"


def _of_foundation(recipe: Recipe) -> Iterator[str]:
    try:
        match recipe.foundation:
            case CheckpointFoundation(path=path):
                check_checkpoint(path)
            case DiffusersFoundation(path=path):
                foundation_files(path)
    except UserError as error:
        yield str(error)


def _of_adapters(recipe: Recipe) -> Iterator[str]:
    for name, spec in recipe.adapters.items():
        try:
            if source := adapter_source(spec):
                check_adapter(name, source)
        except UserError as error:
            yield str(error)


def _of_inputs(recipe: Recipe) -> Iterator[str]:
    sizes = named_sizes(recipe.foundation)
    for task in recipe.tasks:
        try:
            inputs = read_inputs(task)
            evaluated(task, len(inputs), calibration_samples=recipe.quad.calibration.samples)
            if sizes:
                for entry in inputs:
                    read_pictures(task, entry, sizes=sizes)
        except QuadbenchError as error:
            yield str(error)


def _of_distillation(recipe: Recipe) -> Iterator[str]:
    """Yield a problem for each adapter that would have to be judged by what it trains on: prompts calibrate more than once."""
    distill, samples = recipe.quad.distill, recipe.quad.calibration.samples
    for name in (distill.adapters or recipe.adapters) if distill else ():
        own = [task for task in recipe.tasks if name in task.adapter] or recipe.tasks
        if all(min(len(read_inputs(task)), samples) < LEAST_DISTILL_SAMPLES for task in own):
            tasks = ", ".join(f"'{task.name}'" for task in own)
            yield (
                f"quad.distill: adapter '{name}' has one input alone in each of its tasks, {tasks}; "
                f"needs {LEAST_DISTILL_SAMPLES}, to judge by others than it trains on"
            )
