"""Sweep: run a recipe with several values of some keys, and collect the metrics of all combinations in one table."""

import itertools
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench import pipeline
from quadbench.artifacts import RunResult
from quadbench.devices import Address
from quadbench.errors import NoTimeError, QuadbenchError, UserError, requires_extra
from quadbench.observer import Observer
from quadbench.pipeline import DEFAULT_RUN, RunOptions, RunOutcome
from quadbench.quad.inputs import read_recipe
from quadbench.quad.model_files import has_random_weights
from quadbench.recipe import Measure, Recipe, recipe_digest
from quadbench.report.html import render_study
from quadbench.report.run_line import study_json
from quadbench.report.sweep import Sweep, SweepPoint, sweep_points, with_best
from quadbench.results.layout import Layout
from quadbench.results.manifest import temporary_folder
from quadbench.results.stored_runs import new_id
from quadbench.spec.yaml_document import read_value

if TYPE_CHECKING:
    from quadbench.quality.trajectories import Teacher

MAX_RUNS = 64  # of one sweep

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """A recipe key to sweep, such as `tasks.0.sampler.steps`, and its values as the user wrote them."""

    key: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A finished sweep and its folder. `failures` maps `KEY=VALUE`, or `KEY=VALUE on ADDRESS` for one device, to the error."""

    sweep: Sweep
    folder: Path
    failures: dict[str, QuadbenchError]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One setting of a sweep (a value for each swept key), and the recipe with that setting."""

    setting: dict[str, str]
    recipe: Recipe

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.setting.items())


def parse_axis(text: str) -> SweepAxis:
    """Parse a sweep option of the form `KEY=V1,V2` into a SweepAxis: a recipe key and its values.

    Raises:
        UserError: the text has another form, or repeats a value.
    """
    key, _, listed = text.partition("=")
    values = tuple(value.strip() for value in listed.split(","))
    if not key or not all(values):
        raise UserError(
            f"--over {text}: expected KEY=V1,V2", hint="write, for example, --over precision.activations.int8=0,50,100"
        )
    if len(set(values)) < len(values):
        raise UserError(f"--over {text}: a value is given more than once")
    return SweepAxis(key=key.strip(), values=values)


def vary_recipe(recipe: str, axes: Sequence[SweepAxis]) -> tuple[Variation, ...]:
    """Return a Variation (setting and changed recipe) for each combination of axis values. Remove each recipe's baselines."""
    keys = [axis.key for axis in axes]
    if len(set(keys)) < len(keys):
        raise UserError(f"--over {max(keys, key=keys.count)} is given twice", hint="give all values in one --over KEY=V1,V2")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_RUNS:
        sizes = " x ".join(str(len(axis.values)) for axis in axes)
        raise UserError(f"--over: {sizes} values are {count} runs; expected at most {MAX_RUNS}", hint="give fewer values")
    settings = [dict(zip(keys, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]
    variations = []
    for setting in settings:
        changed = read_recipe(recipe, {key: read_value(value) for key, value in setting.items()})
        variations.append(Variation(setting=setting, recipe=changed.model_copy(update={"baselines": ()})))
    for one, other in itertools.combinations(variations, 2):
        if one.recipe == other.recipe:
            raise UserError(f"--over: '{one}' and '{other}' are the same recipe", hint="give each key and each value once")
    first = variations[0]
    for axis, profile in itertools.product(axes, first.recipe.devices):
        # Where the recipe has a value of its own for devices, a key changes nothing on them.
        alone = [v for v in variations if all(v.setting[key] == first.setting[key] for key in v.setting.keys() - {axis.key})]
        if len({recipe_digest(variation.recipe.for_device(profile)) for variation in alone}) < len(alone):
            raise UserError(
                f"--over {axis.key} changes nothing on '{profile}': the recipe sets the value in devices.{profile}",
                hint=f"remove the value there, or sweep over a key of devices.{profile}",
            )
    return tuple(variations)


def sweep(
    recipe: str,
    axes: Sequence[SweepAxis],
    addresses: Sequence[Address],
    options: RunOptions = DEFAULT_RUN,
    *,
    layout: Layout,
    observer: Observer,
) -> SweepResult:
    """Build bundles for all combinations of a sweep's values, run and score the bundles, and write results to `sweeps/<id>/`.

    Build steps that combinations share run once. With `keep_going`, a combination that fails is left out, as long as another
    combination succeeds. The time budget is for the whole sweep.

    Raises:
        QuadbenchError: a value is invalid, a device is not available, a build failed, or all devices failed at a setting.
    """
    began = time.monotonic()
    variations = vary_recipe(recipe, axes)
    pipeline.require_devices(addresses, f"sweep of {variations[0].recipe.name}", options, layout=layout)
    if not _has_random_weights(variations):
        with requires_extra("quad"):  # checked before anything is built
            import quadbench.quality.trajectories  # noqa: F401  (checks only that it can be imported)
    profiles = dict.fromkeys(address.profile for address in addresses)
    built = [variation.recipe.for_device(profile) for variation in variations for profile in profiles]
    pipeline.build_all(built, layout=layout, observer=observer)
    command = _command(recipe, axes, addresses, options, layout)
    under_way = _RunningSweep(sweep_id=new_id(), variations=variations, command=command)
    with _kept_if_broken_off(under_way, layout):
        _measure(under_way, addresses, options.since(began), layout, observer)
    return SweepResult(sweep=under_way.sweep, folder=_write(under_way.sweep, layout), failures=under_way.failures)


@dataclass(frozen=True, kw_only=True)
class _RunningSweep:
    """A sweep in progress: results (`points`), errors by variation or device (`failures`), excluded devices (`left_out`)."""

    sweep_id: str
    variations: Sequence[Variation]
    command: str
    points: list[SweepPoint] = field(default_factory=list)
    failures: dict[str, QuadbenchError] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # devices, by setting and address

    def note(self, variation: Variation, outcome: RunOutcome) -> None:
        """Add a run's reasons for excluded devices to `left_out`, errors to `failures`. Keys are `KEY=VALUE on ADDRESS`."""
        self.left_out.update({f"{variation} on {address}": reason for address, reason in outcome.result.left_out.items()})
        self.failures.update({f"{variation} on {address}": error for address, error in outcome.failures.items()})

    @property
    def sweep(self) -> Sweep:
        """Return a Sweep of the results so far. Each key of `left_out` is a missing setting, or a setting and device."""
        first = self.variations[0]
        settings = [point.setting for point in self.points]
        missing = [str(variation) for variation in self.variations if variation.setting not in settings]
        return with_best(
            Sweep(
                sweep_id=self.sweep_id,
                recipe_name=first.recipe.name,
                keys=tuple(first.setting),
                published=first.recipe.published,
                points=tuple(self.points),
                touched=changed_tasks(self.variations),
                left_out=self.left_out | {name: str(self.failures.get(name, "the sweep was interrupted")) for name in missing},
                command=self.command,
            )
        )


@contextmanager
def _kept_if_broken_off(under_way: _RunningSweep, layout: Layout) -> Iterator[None]:
    """Run a `with` block. On Ctrl-C or a QuadbenchError, write the sweep's results so far, log the path, and raise again."""
    try:
        yield
    except (KeyboardInterrupt, QuadbenchError):
        if under_way.points:
            log.warning("the completed settings are in '%s'", _write(under_way.sweep, layout) / "sweep.html")
        raise


def _measure(
    under_way: _RunningSweep, addresses: Sequence[Address], options: RunOptions, layout: Layout, observer: Observer
) -> None:
    """Run and score each recipe of a sweep, and add results and errors to `under_way`. All runs share one time budget."""
    began, variations = time.monotonic(), under_way.variations
    with temporary_folder(layout.scratch) as scratch:
        teacher = _teacher(variations, scratch)
        for number, variation in enumerate(variations, start=1):
            observer.stage_step("sweep", f"{number} of {len(variations)}: {variation}")
            try:
                conduct_now, setting = options.since(began), variation.setting
                outcome = pipeline.run(
                    variation.recipe, addresses, swept=setting, options=conduct_now, layout=layout, observer=observer
                )
                under_way.note(variation, outcome)
                under_way.points.extend(_points(variation, outcome.result, teacher, layout, observer))
            except QuadbenchError as error:
                under_way.failures[str(variation)] = error
                if not (options.keep_going or isinstance(error, NoTimeError)):
                    raise
    if not under_way.points:
        raise next(iter(under_way.failures.values()))


def changed_tasks(variations: Sequence[Variation]) -> tuple[str, ...]:
    """Return the names of tasks whose recipe differs between combinations of swept values. Ignore measurement settings."""
    works: dict[str, set[str]] = {}
    for variation in variations:
        for task in variation.recipe.tasks:
            work = variation.recipe.model_copy(update={"tasks": (task,), "measure": Measure()})
            works.setdefault(task.name, set()).add(recipe_digest(work))
    return tuple(name for name, digests in works.items() if len(digests) > 1)


def _command(recipe: str, axes: Sequence[SweepAxis], addresses: Sequence[Address], options: RunOptions, layout: Layout) -> str:
    keys = [word for axis in axes for word in ("--over", str(axis))]
    retries = [] if options.retries == DEFAULT_RUN.retries else ["--retries", str(options.retries)]
    budget = [] if options.budget_s is None else ["--budget", f"{options.budget_s:.0f}s"]
    keep_going = ["--keep-going"] if options.keep_going else []
    return layout.command("sweep", recipe, *keys, "--devices", ",".join(map(str, addresses)), *retries, *budget, *keep_going)


def _has_random_weights(variations: Sequence[Variation]) -> bool:
    return any(has_random_weights(variation.recipe) for variation in variations)


def _teacher(variations: Sequence[Variation], folder: Path) -> "Teacher | None":
    """Return the Teacher, which makes a sweep's reference images, or None if a recipe's model has random weights."""
    if _has_random_weights(variations):
        return None
    from quadbench.quality.trajectories import Teacher

    return Teacher([variation.recipe for variation in variations], folder)


def _points(
    variation: Variation, result: RunResult, teacher: "Teacher | None", layout: Layout, observer: Observer
) -> list[SweepPoint]:
    scores, likeness = None, None
    if teacher:
        from quadbench.quality import score_run

        scores = score_run(layout, result.run_id, with_latents=True, notify=partial(observer.stage_step, "quality"))
        likeness = teacher.likeness(variation.recipe, result, layout, notify=partial(observer.stage_step, "quality"))
    return list(sweep_points(variation.setting, result, scores, likeness))


def _write(result: Sweep, layout: Layout) -> Path:
    """Write a sweep's folder (JSON and report) atomically, and return its path."""
    folder = layout.sweep(result.sweep_id)
    with temporary_folder(folder) as temporary:
        (temporary / "sweep.json").write_text(f"{study_json(result)}\n", encoding="utf-8")
        (temporary / "sweep.html").write_text(render_study(result, layout.root_arguments), encoding="utf-8")
        return temporary.rename(folder)
