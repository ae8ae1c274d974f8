"""Sweep: a recipe and several values of one of its keys -> a run for each value, and their figures beside each other."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from quadbench import pipeline
from quadbench.artifacts import Caveat
from quadbench.devices.addresses import profile_named
from quadbench.errors import UserError, extra_needed
from quadbench.observer import Observer
from quadbench.recipe import Recipe, load_recipe, recipe_digest
from quadbench.report import Sweep, SweepPoint, sweep_chart, sweep_csv, sweep_points
from quadbench.results.layout import Layout
from quadbench.results.runs import new_id
from quadbench.spec import read_value


@dataclass(frozen=True, kw_only=True)
class Over:
    """A key of a recipe, as `tasks.0.sampler.steps`, and values for it, as they were written."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A sweep and the folder with sweep.json, table.csv and sweep.svg."""

    sweep: Sweep
    folder: Path


def read_over(text: str) -> Over:
    """Read `KEY=V1,V2`.

    Raises:
        UserError: the text has another form, or a value twice.
    """
    key, _, listed = text.partition("=")
    values = tuple(value.strip() for value in listed.split(","))
    if not key or not all(values):
        raise UserError(f"--over {text}: expected KEY=V1,V2", hint="--over precision.activations.int8=0,50,100, for one")
    if len(set(values)) < len(values):
        raise UserError(f"--over {text}: a value stands more than once")
    return Over(key=key.strip(), values=values)


def varied(recipe: str, over: Over) -> dict[str, Recipe]:
    """Return the recipe with each value, by value; without baselines, since values are compared with each other.

    Raises:
        UserError: names every problem of the first value that does not fit.
    """
    recipes = {value: load_recipe(recipe, {over.key: read_value(value)}) for value in over.values}
    _refuse_overruled(over, list(recipes.values()))
    return {value: recipe_of_value.model_copy(update={"baselines": ()}) for value, recipe_of_value in recipes.items()}


def _refuse_overruled(over: Over, recipes: Sequence[Recipe]) -> None:
    """Refuse a key that changes nothing on some devices, as the recipe has a value of its own for them."""
    for profile in recipes[0].devices:
        if len({recipe_digest(recipe.on(profile)) for recipe in recipes}) < len(recipes):
            raise UserError(
                f"--over {over.key}: changes nothing on '{profile}', whose value stands under devices.{profile}",
                hint=f"take the value out there, or sweep over a key of devices.{profile}",
            )


def sweep(recipe: str, over: Over, addresses: Sequence[str], *, layout: Layout, observer: Observer) -> Swept:
    """Build what is not there yet, doing once what the values share; then run, score and write `sweeps/<id>/`.

    Raises:
        QuadbenchError: a value does not fit the recipe, nothing could be built, or every device failed at some value.
    """
    recipes = varied(recipe, over)
    profiles = dict.fromkeys(profile_named(address.strip()) for address in addresses)
    built = [each.on(profile) for each in recipes.values() for profile in profiles]
    pipeline.build_all(built, layout=layout, observer=observer)
    points = [p for value, each in recipes.items() for p in _points(over.key, value, each, addresses, layout, observer)]
    first = next(iter(recipes.values()))
    sweep_id = new_id()
    result = Sweep(sweep_id=sweep_id, recipe_name=first.name, key=over.key, published=first.published, points=tuple(points))
    return Swept(sweep=result, folder=_write(result, layout.sweep(sweep_id)))


def _points(
    key: str, value: str, recipe: Recipe, addresses: Sequence[str], layout: Layout, observer: Observer
) -> Iterator[SweepPoint]:
    observer.step("sweep", f"{key} = {value}")
    result = pipeline.run(recipe, addresses, layout=layout, observer=observer).result
    scores = None
    if Caveat.RANDOM_WEIGHTS not in result.bundle.caveats:
        with extra_needed("quality"):
            from quadbench.quality import score_run
        scores = score_run(layout, result.run_id, with_latents=True, notify=partial(observer.step, "quality"))
    yield from sweep_points(key, value, result, scores)


def _write(result: Sweep, folder: Path) -> Path:
    """Write a sweep's folder, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}")
    temporary.mkdir(parents=True)
    (temporary / "sweep.json").write_text(json.dumps(asdict(result), indent=1, allow_nan=False) + "\n")
    (temporary / "table.csv").write_text(sweep_csv(result))
    (temporary / "sweep.svg").write_text(sweep_chart(result))
    return temporary.rename(folder)
