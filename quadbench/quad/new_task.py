"""New task: a task of a bundle and an admitted adapter -> the same task by that adapter, with reference images of its own."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from PIL.Image import Image

from quadbench.artifacts import Bundle, Stored, TaskAssets
from quadbench.errors import UnknownNameError, UserError
from quadbench.quad.candidate import NewTask
from quadbench.quad.model.foundation import open_foundation
from quadbench.quad.samplers.table import read_table
from quadbench.quad.sources import AdapterSource, has_random_weights
from quadbench.quad.tasks.items import task_items
from quadbench.quad.tasks.reference import reference_for
from quadbench.quad.writer import BundleWriter
from quadbench.recipe import Task, is_mix, mix_name

Painting = Callable[[int, int], None]  # is told the number of a reference image that is begun, and of how many


def unseen(_number: int, _total: int) -> None:
    """Tell nobody."""


def checked_task(new: NewTask, bundle: Bundle, name: str) -> TaskAssets:
    """Return the bundle's task that the new one, of this name, shall be like.

    Raises:
        UnknownNameError: the recipe, or the bundle, has no such task.
        UserError: the bundle has a task of the new one's name.
    """
    tasks = {task.name: task for task in bundle.tasks}
    if new.like not in tasks or new.like not in {task.name for task in new.recipe.tasks}:
        raise UnknownNameError("task", new.like, [task.name for task in new.recipe.tasks])
    if name in tasks:
        hint = "give the adapter another name, with --name"
        raise UserError(f"bundle {bundle.digest[:12]} has a task '{name}' already", hint=hint)
    return tasks[new.like]


def new_task(
    new: NewTask,
    bundle: Stored[Bundle],
    sources: Mapping[str, AdapterSource],
    weights: Mapping[str, float],
    writer: BundleWriter,
    painting: Painting = unseen,
) -> TaskAssets:
    """Return the task by one adapter, which both mappings name; its reference images are written, by diffusers or PEFT.

    Inputs, noise and sampler are those of the task that it is like; the truth of that task is not that of another adapter. A
    sampler that was fitted to that task is not fitted again.
    """
    (name,) = weights
    like = checked_task(new, bundle.artifact, name)
    task = next(task for task in new.recipe.tasks if task.name == new.like)
    task = task.model_copy(update={"name": name, "adapter": dict(weights)})
    pictures = _pictures(new, task, bundle.path(like.table), sources, painting)
    items = tuple(
        replace(
            item,
            truth=None,
            reference=writer.image(f"reference/{name}/{item.name}.png", pictures[item.name]) if pictures else None,
        )
        for item in like.items
    )
    mix = dict(weights) if is_mix(weights) else None
    return replace(like, name=name, adapter=mix_name(weights), mix=mix, items=items, fit_error=None)


def _pictures(
    new: NewTask, task: Task, table: Path, sources: Mapping[str, AdapterSource], painting: Painting
) -> dict[str, Image]:
    """Return the reference's images by item; none for random weights, whose pictures show nothing."""
    if has_random_weights(new.recipe):
        return {}
    foundation = open_foundation(new.recipe.foundation)
    items = task_items(task, foundation, calibration_samples=new.recipe.quad.calibration.samples)
    reference = reference_for(foundation, task, read_table(table), sources)
    pictures = {}
    for number, item in enumerate(items.evaluation, start=1):
        painting(number, len(items.evaluation))
        pictures[item.name] = reference.render(item)
    return pictures
