"""Teacher: recipes with unlike samplers -> float pictures of the long run that all of them shorten, and how near theirs are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from quadbench.artifacts import RunResult, Variant
from quadbench.artifacts.pixels import psnr_db, read_pixels
from quadbench.quad.model.foundation import open_foundation
from quadbench.quad.samplers.olss import ddim_table
from quadbench.quad.sources import adapter_source
from quadbench.quad.steps import Notify, silent
from quadbench.quad.tasks.items import task_items
from quadbench.quad.tasks.prepared import start_of
from quadbench.quad.tasks.reference import reference_for
from quadbench.recipe import TEACHER_STEPS, LcmSampler, OlssSampler, Recipe, Task
from quadbench.results.layout import Layout

TaskLikeness = Mapping[tuple[str, str], Mapping[str, float]]  # by task and device, then by item: PSNR in dB
_LONG = OlssSampler(scheme="olss", steps=TEACHER_STEPS)


class Teacher:
    """The float pictures of 100 DDIM steps, each task once; none of a task by LCM, whose adapter was trained for few steps."""

    def __init__(self, recipes: Sequence[Recipe], folder: Path) -> None:
        """Keep pictures in `folder`. None are painted where samplers are alike: then all recipes have one float reference."""
        samplers = {tuple(task.sampler for task in recipe.tasks) for recipe in recipes}
        self._is_needed = len(samplers) > 1
        self._folder = folder
        self._painted: dict[str, dict[str, Path]] = {}

    def likeness(self, recipe: Recipe, result: RunResult, layout: Layout, *, notify: Notify = silent) -> TaskLikeness:
        """Return how near the shared graph's pictures of a run are to the teacher's."""
        tasks = [task for task in recipe.tasks if self._is_needed and not isinstance(task.sampler, LcmSampler)]
        painted = {task.name: self._pictures(recipe, task, notify) for task in tasks}
        likeness: dict[tuple[str, str], dict[str, float]] = {}
        for record in result.records:
            for key, path in record.images.items() if record.variant is Variant.SHARED else ():
                task, item = key.split("/", 1)
                of_task = likeness.setdefault((task, record.device.address), {})
                if item in painted.get(task, {}) and item not in of_task:
                    of_task[item] = psnr_db(read_pixels(layout.file(path)), read_pixels(painted[task][item]))
        return likeness

    def _pictures(self, recipe: Recipe, task: Task, notify: Notify) -> dict[str, Path]:
        """Return the teacher's picture of each item; those of the same task with another sampler are the same."""
        long = task.model_copy(update={"sampler": _LONG})
        key = repr((recipe.foundation, recipe.adapters, recipe.quad.calibration.samples, long))
        if key not in self._painted:
            self._painted[key] = self._paint(recipe, long, self._folder / str(len(self._painted)), notify)
        return self._painted[key]

    def _paint(self, recipe: Recipe, task: Task, folder: Path, notify: Notify) -> dict[str, Path]:
        folder.mkdir(parents=True)
        foundation = open_foundation(recipe.foundation)
        sources = {name: source for name in task.adapter if (source := adapter_source(recipe.adapters[name]))}
        with torch.no_grad():
            table = ddim_table(foundation.alphas_cumprod, **start_of(task))
        reference = reference_for(foundation, task, table, sources)
        items = task_items(task, foundation, calibration_samples=recipe.quad.calibration.samples).evaluation
        paths = {item.name: folder / f"{item.name}.png" for item in items}
        for number, item in enumerate(items, start=1):
            notify(f"teacher's picture {number} of {len(items)} of {task.name}")
            reference.render(item).save(paths[item.name])
        return paths
