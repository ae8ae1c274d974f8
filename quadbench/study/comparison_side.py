"""The two builds (sides) of a comparison, and its options. A side is a recipe, bundle or run, with any changed settings."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from quadbench import pipeline
from quadbench.artifacts import Bundle, RunResult, StoredBundle, StoredCompiled, TaskAssets, Variant
from quadbench.artifacts.run_record import has_references, shared_only_tasks
from quadbench.errors import UnknownNameError, UserError
from quadbench.observer import Observer
from quadbench.pipeline import DEFAULT_RUN, RecordHooks, RunOptions
from quadbench.quad.inputs import read_recipe
from quadbench.recipe import Measure, Recipe, RunSettings, Task
from quadbench.recipe.tasks import RandomFoundation
from quadbench.results.layout import Layout
from quadbench.results.manifest import MANIFEST, read_manifest
from quadbench.results.stored_runs import is_run, load_run, read_run_file, unknown_id_error
from quadbench.spec import is_file
from quadbench.spec.yaml_document import read_value
from quadbench.statistics import Looks
from quadbench.statistics.multiple_testing import LOOKS

_MEASURED_ALIKE = ("warmup", "iterations", "switches", "sequence")
_MAX_LENGTH = 40  # characters of a name
_OWN = ("variant", "harness", "kit")  # changes of a side that are no keys of a recipe


@dataclass(frozen=True, kw_only=True)
class SideSpec:
    """One of two compared builds as the user named it: a recipe, a bundle or a run, and a dict of its changed settings."""

    source: str
    changes: Mapping[str, str]  # new values by recipe key, or by variant, harness or kit
    recipe: Recipe | None = None
    bundle: StoredBundle | None = None
    run: RunResult | None = None
    variant: Variant = Variant.SHARED
    harness: Path | None = None
    kit: str | None = None
    terms: RunSettings = field(default_factory=RunSettings)  # measurement settings; defaults for a bundle

    @property
    def name(self) -> str:
        """Return a build's display name: the source's file name and changed settings, as in `x.yaml with variant=float`."""
        changes = ", ".join(f"{key}={value}" for key, value in self.changes.items())
        return f"{Path(self.source).name[:_MAX_LENGTH]}{f' with {changes}' if changes else ''}"

    @property
    def tasks(self) -> list[str]:
        """Return the task names of a compared build. For a variant with a U-Net per task, tasks without a U-Net are left out."""
        bundle = self._existing_bundle
        tasks: Sequence[TaskAssets | Task] = bundle.tasks if bundle else self.recipe.tasks if self.recipe else ()
        admitted = shared_only_tasks(bundle) if bundle and self.variant.has_unet_per_task else ()
        return [task.name for task in tasks if task.name not in admitted]

    @property
    def variants(self) -> set[Variant]:
        """Return the variants that a recipe (`shared`, `float`, its baselines) or bundle (variants of its graphs) can run."""
        if self.recipe:
            return {Variant.SHARED, Variant.FLOAT, *map(Variant, self.recipe.baselines)}
        return {graph.variant for graph in self._existing_bundle.graphs} if self._existing_bundle else set()

    @property
    def has_references(self) -> bool:
        """Return whether a compared build has reference images. Builds of models with random weights have none."""
        if self.recipe:
            return not isinstance(self.recipe.foundation, RandomFoundation)
        return self._existing_bundle is not None and has_references(self._existing_bundle)

    @property
    def _existing_bundle(self) -> Bundle | None:
        return self.run.bundle if self.run else self.bundle.artifact if self.bundle else None

    def bundles(self, profiles: Sequence[str], *, layout: Layout, observer: Observer) -> dict[str, StoredBundle]:
        """Return a dict from device profile name to StoredBundle. If the build is a recipe, create missing bundles first."""
        if self.recipe:
            return pipeline.ensure_bundles_for(self.recipe, profiles, layout=layout, observer=observer)
        stored = self.bundle or (self.run.stored if self.run else None)
        others = self.run.others if self.run else {}
        return {profile: bundle for profile in profiles if (bundle := others.get(profile, stored))}


def side_of(source: str, changes: Mapping[str, str], layout: Layout) -> SideSpec:
    """Return the SideSpec of a recipe, bundle folder or run id. `changes` maps a recipe key, variant, harness or kit to a value.

    Raises:
        UserError: the source is none of them, or a change does not fit it.
        ArtifactError: the bundle or the run is damaged.
    """
    own = {key: changes[key] for key in _OWN if key in changes}
    of_recipe = {key: read_value(value) for key, value in changes.items() if key not in _OWN}
    try:
        variant = Variant(own.get("variant", Variant.SHARED))
    except ValueError as error:
        raise UnknownNameError("variant", own["variant"], [variant.value for variant in Variant]) from error
    chosen = SideSpec(
        source=source,
        changes=dict(changes),
        variant=variant,
        harness=Path(own["harness"]) if "harness" in own else None,
        kit=own.get("kit"),
    )
    is_bundle = is_file(Path(source) / MANIFEST)
    of_run = not is_bundle and is_run(source, layout)
    if (is_bundle or of_run) and of_recipe:
        what = "bundle" if is_bundle else "run"
        raise UserError(
            f"'{source}' is a {what}, but {next(iter(of_recipe))} is a key of a recipe",
            hint=f"name the recipe instead; a {what} only allows changes to {', '.join(_OWN)}",
        )
    if is_bundle:
        return replace(chosen, bundle=read_manifest(Path(source), Bundle))
    if of_run:
        return replace(chosen, run=load_run(layout, source), terms=read_run_file(layout, source).terms)
    try:
        recipe = read_recipe(source, of_recipe)
    except UnknownNameError as error:
        if not source[:1].isdigit():  # ids begin with a date
            raise
        raise unknown_id_error(source, layout) from error
    return replace(chosen, recipe=recipe, terms=recipe.terms)


def require_common_tasks(a: SideSpec, b: SideSpec, wanted: Collection[str] = (), *, called: tuple[str, str] = ("A", "B")) -> None:
    """Raise UserError if two builds share no task from `wanted` (empty: any task). `called` holds build names for the message."""
    common = set(a.tasks) & set(b.tasks)
    if common.isdisjoint(wanted or common):
        only = f" among {', '.join(wanted)}" if wanted else ""
        has = "; ".join(f"{name} has {', '.join(side.tasks)}" for name, side in zip(called, (a, b), strict=True))
        raise UserError(f"the sides have no task in common{only}: {has}")


def measure_for(a: SideSpec, b: SideSpec) -> Measure:
    """Return a comparison's measurement settings: from a recipe, else a stored run, else the defaults. `a` precedes `b`.

    Raises:
        UserError: two recipes differ in iterations, warm-up, switches or the order of tasks.
    """
    asked = [side.recipe.measure for side in (a, b) if side.recipe]
    for key in _MEASURED_ALIKE if len(asked) > 1 else ():
        values = [getattr(measure, key) for measure in asked]
        if values[0] != values[1]:
            raise UserError(
                f"measure.{key} is {values[0]} for A and {values[1]} for B; expected the same value for both",
                hint=f"set measure.{key} with --a or --b",
            )
    of_runs = [side.terms.measure for side in (a, b) if side.run]
    return next(iter((*asked, *of_runs)), a.terms.measure)


def require_variant(chosen: SideSpec, there: Collection[Variant]) -> None:
    """Raise UserError if a build has no graphs of the variant to run. `there` holds the variants of all graphs in the build."""
    if chosen.variant.graph_variant not in there:
        raise UserError(
            f"'{chosen.source}' has no graphs of {chosen.variant}; found {', '.join(sorted(there))}",
            hint=f"set baselines: [{chosen.variant}] in the recipe, and build again",
        )


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A metric of a task on which a comparison must give a verdict. `limit` is the smallest change to detect, as |log(B / A)|."""

    task: str
    key: str
    limit: float


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RecordHooks):
    """Options of a comparison. The comparison ends early if all metrics in `goals` (default: image time) have clear verdicts.

    With `to_see`, an effect such as 0.03, the interim tests (looks) are planned from the spread of the first blocks. `tasks`
    limits the common tasks; empty means all. `compiled` holds graphs compiled elsewhere, by bundle digest and target key.
    """

    looks: Looks = LOOKS
    to_see: float | None = None
    goals: tuple[Goal, ...] = ()
    tasks: tuple[str, ...] = ()
    run_options: RunOptions = DEFAULT_RUN
    compiled: Mapping[tuple[str, str], StoredCompiled] = field(default_factory=dict)


DEFAULTS = CompareOptions()
