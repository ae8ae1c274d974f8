"""A new task's reference is painted as the bundle's task runs: by the sampler that it was built with, and on its inputs."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from support.bundles import bundle_of  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench.artifacts import FileRef, TaskAssets, TaskItem  # noqa: E402
from quadbench.artifacts.bundle import TaskKind  # noqa: E402
from quadbench.errors import UserError  # noqa: E402
from quadbench.quad.admit import check_items, task_as_built, template_task  # noqa: E402
from quadbench.quad.candidate import NewTask  # noqa: E402
from quadbench.quad.items import Item, fixed_table, task_items  # noqa: E402
from quadbench.quad.model.foundation import Foundation  # noqa: E402
from quadbench.quad.samplers.table import read_table  # noqa: E402
from quadbench.recipe import Recipe  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402

FEWER = {"devices": {"s25": {"samplers": {"imagine": {"scheme": "ed", "steps": 2}}}}}
FILE = FileRef(path="x", sha256="0" * 64, size_bytes=1)


def case_of(recipe: Recipe, foundation: Foundation) -> tuple[TaskAssets, tuple[Item, ...]]:
    """Return `imagine` as a bundle of the recipe has it, and its items."""
    task = next(task for task in recipe.tasks if task.name == "imagine")
    items = task_items(task, foundation, calibration_samples=1).evaluation
    texts = [(i.name, i.prompt, i.tokens, i.negative_tokens) for i in items]
    return TaskAssets(
        name=task.name,
        kind=TaskKind(task.kind),
        adapter=None,
        scheme=task.sampler.scheme,
        steps=task.sampler.steps,
        guidance=task.guidance,
        table=FILE,
        tensors=FILE,
        items=tuple(
            TaskItem(
                name=name,
                image=None,
                mask=None,
                truth=None,
                reference=None,
                prompt=prompt,
                tokens=ids,
                negative_tokens=negative,
            )
            for name, prompt, ids, negative in texts
        ),
    ), items


def test_a_task_of_a_bundle_that_devices_of_one_profile_run_has_their_sampler(
    tiny_recipe: Path, foundation: Foundation, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe, FEWER)
    like, _ = case_of(recipe.for_device("s25"), foundation)
    table = fixed_table(recipe.for_device("s25").tasks[2], foundation)
    assert table is not None
    (tmp_path / "table.json").write_text(json.dumps(asdict(table)))
    table = read_table(tmp_path / "table.json")
    assert task_as_built(NewTask(recipe=recipe, like="imagine"), like, table, foundation).sampler.steps == 2


@pytest.mark.parametrize("changes", [{"tasks.2.sampler.steps": 4}, {"tasks.2.guidance": 3.0}])
def test_a_task_that_the_recipe_has_otherwise_by_now_is_refused(
    tiny_recipe: Path, foundation: Foundation, changes: dict[str, object]
) -> None:
    like, _ = case_of(load_recipe(tiny_recipe), foundation)
    table = fixed_table(load_recipe(tiny_recipe).tasks[2], foundation)
    assert table is not None
    new = NewTask(recipe=load_recipe(tiny_recipe, changes), like="imagine")
    with raising(UserError, "imagine", 3, 2):
        task_as_built(new, like, table, foundation)


def test_a_fitted_sampler_has_at_most_the_steps_that_the_recipe_asks_for(tiny_recipe: Path, foundation: Foundation) -> None:
    table = fixed_table(load_recipe(tiny_recipe).tasks[2], foundation)
    assert table is not None
    fitted = load_recipe(tiny_recipe, {"tasks.2.sampler.scheme": "olss"})
    like, _ = case_of(fitted, foundation)
    for steps in (3, 2):  # fewer where more would not lower the error
        shorter = replace(like, steps=steps)
        assert task_as_built(NewTask(recipe=fitted, like="imagine"), shorter, table, foundation).sampler.steps == 3
    fewer = load_recipe(tiny_recipe, {"tasks.2.sampler.scheme": "olss", "tasks.2.sampler.steps": 2})
    with raising(UserError, "imagine", 3, "olss", 2):
        task_as_built(NewTask(recipe=fewer, like="imagine"), like, table, foundation)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "another"}, ("001",)),
        ({"seed": 7}, ("001",)),
        ({"name": "002"}, ("001",)),
        (None, (1, 2)),
    ],
)
def test_other_inputs_than_the_bundle_s_are_refused(
    tiny_recipe: Path, foundation: Foundation, change: dict[str, object] | None, said: tuple[object, ...]
) -> None:
    like, items = case_of(load_recipe(tiny_recipe), foundation)
    noise = {f"noise.{item.name}": item.noise(foundation, like.steps).numpy() for item in items}
    check_items(items, like, noise, foundation)
    others = items[:1] if change is None else (items[0], replace(items[1], **change))
    with raising(UserError, "imagine", *said):
        check_items(others, like, noise, foundation)


def test_a_new_task_is_not_called_as_none_is(tiny_recipe: Path, foundation: Foundation) -> None:
    recipe = load_recipe(tiny_recipe)
    bundle = bundle_of(FILE, tasks=(case_of(recipe, foundation)[0],))
    assert template_task(NewTask(recipe=recipe, like="imagine"), bundle, "another").name == "imagine"
    with raising(UserError, "none"):
        template_task(NewTask(recipe=recipe, like="imagine"), bundle, "none")
