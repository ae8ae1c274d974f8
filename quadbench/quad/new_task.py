"""New task: a task of a bundle and an admitted adapter -> the same task by that adapter, with reference images of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL.Image import Image
from safetensors.numpy import load_file

from quadbench.artifacts import Bundle, Stored, TaskAssets, TaskItem
from quadbench.errors import UnknownNameError, UserError
from quadbench.quad.candidate import NewTask
from quadbench.quad.model.foundation import Foundation, open_foundation
from quadbench.quad.samplers.table import SamplerTable, read_table
from quadbench.quad.sources import AdapterSource, has_random_weights
from quadbench.quad.tasks.items import Item, task_items
from quadbench.quad.tasks.prepared import known_table
from quadbench.quad.tasks.reference import reference_for
from quadbench.quad.writer import BundleWriter
from quadbench.recipe import Task, is_mix, mix_name
from quadbench.recipe.tasks import NO_TASK

_NOISE_TOLERANCE = 1e-5  # of normal values: another machine may round the last bit otherwise
_OF_WHICH = "give the recipe of which the bundle was built, as it was then"
Painting = Callable[[int, int], None]  # is told the number of a reference image that is begun, and of how many


def unseen(_number: int, _total: int) -> None:
    """Tell nobody."""


def checked_task(new: NewTask, bundle: Bundle, name: str) -> TaskAssets:
    """Return the bundle's task that the new one, of this name, shall be like.

    Raises:
        UnknownNameError: the recipe, or the bundle, has no such task.
        UserError: the bundle has a task of the new one's name, or no task may have it.
    """
    tasks = {task.name: task for task in bundle.tasks}
    if new.like not in tasks or new.like not in {task.name for task in new.recipe.tasks}:
        raise UnknownNameError("task", new.like, [task.name for task in new.recipe.tasks])
    hint = "give the adapter another name, with --name"
    if name == NO_TASK:
        raise UserError(f"no task can be called '{name}', which stands for no task where a launch begins", hint=hint)
    if name in tasks:
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
    pictures = _pictures(new, bundle, like, sources, weights, painting)
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
    new: NewTask,
    bundle: Stored[Bundle],
    like: TaskAssets,
    sources: Mapping[str, AdapterSource],
    weights: Mapping[str, float],
    painting: Painting,
) -> dict[str, Image]:
    """Return the reference's images by item; none for random weights, whose pictures show nothing."""
    if has_random_weights(new.recipe):
        return {}
    foundation, table = open_foundation(new.recipe.foundation), read_table(bundle.path(like.table))
    task = task_as_built(new, like, table, foundation)
    items = task_items(task, foundation, calibration_samples=new.recipe.quad.calibration.samples).evaluation
    check_items(items, like, load_file(bundle.path(like.tensors)), foundation)
    reference = reference_for(foundation, task.model_copy(update={"adapter": dict(weights)}), table, sources)
    pictures = {}
    for number, item in enumerate(items, start=1):
        painting(number, len(items))
        pictures[item.name] = reference.render(item)
    return pictures


def task_as_built(new: NewTask, like: TaskAssets, table: SamplerTable, foundation: Foundation) -> Task:
    """Return the recipe's task with the bundle's sampler, which may be that of devices of one profile.

    A table that was fitted may have fewer steps than the recipe asks for, and does not tell the strength.

    Raises:
        UserError: in the recipe it has another sampler or guidance than in the bundle, or fewer steps than were fitted, or, where
            nothing is fitted, another number of them or another strength.
    """
    recipes = (new.recipe.on(profile) for profile in (None, *new.recipe.devices))
    for task in (task for recipe in recipes for task in recipe.tasks if task.name == like.name):
        known = known_table(task, foundation)  # none where it is fitted when the bundle is built
        is_same = known == table if known else like.steps <= task.sampler.steps
        if is_same and (task.sampler.scheme, task.guidance) == (like.scheme, like.guidance):
            return task
    raise UserError(
        f"task '{like.name}' of the bundle has {like.steps} steps of {like.scheme} with guidance {like.guidance:g}; "
        "in the recipe it has another sampler, strength or guidance",
        hint=_OF_WHICH,
    )


def check_items(items: Sequence[Item], like: TaskAssets, tensors: Mapping[str, np.ndarray], foundation: Foundation) -> None:
    """Refuse items that are not those of the bundle's task, whose `tensors` hold their noise.

    Raises:
        UserError: names the first.
    """
    pairs = zip(like.items, items, strict=False)
    others = [own.name for own, item in pairs if not _is_same(own, item, tensors, foundation, like.steps)]
    if others or len(items) != len(like.items):
        first = f", as '{others[0]}'" if others else f": {len(items)} of them, where the bundle has {len(like.items)}"
        raise UserError(f"task '{like.name}' has other inputs in the recipe than in the bundle{first}", hint=_OF_WHICH)


def _is_same(own: TaskItem, item: Item, tensors: Mapping[str, np.ndarray], foundation: Foundation, steps: int) -> bool:
    texts = (own.name, own.prompt, own.input_ids, own.negative_input_ids)
    if texts != (item.name, item.prompt, item.input_ids, item.negative_input_ids):
        return False
    if (own.image is None, own.mask is None, own.blend is None) != (item.image is None, item.mask is None, item.blend is None):
        return False
    noise, drawn = tensors[f"noise.{own.name}"], item.noise(foundation, steps).numpy()
    return noise.shape == drawn.shape and np.allclose(noise, drawn, atol=_NOISE_TOLERANCE)
