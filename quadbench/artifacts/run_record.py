"""Runs as data: devices, launches, their records and scores; and the graphs and files that a launch needs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from quadbench.artifacts.bundle import (
    LORA_PREFIX,
    SCHEMA_VERSION,
    AdapterFile,
    Bundle,
    CompiledBundle,
    Component,
    FileRef,
    Graph,
    HeldOut,
    Stored,
    TaskAssets,
    TaskKind,
    Variant,
)
from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.launch_values import Sample, Samples
from quadbench.errors import ArtifactError, UnknownNameError

SCORES_SCHEMA_VERSION = 1

HOSTED_FAMILY = "ai_hub"
LIBRARY_PREFIX = "library."  # of versions that name a library which the harness loaded, with its path and build id

BASE_UNET = "base"  # the name of the U-Net that all tasks share


class Status(StrEnum):
    """The ways in which a launch can end."""

    OK = "OK"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    SKIPPED = "SKIPPED"  # the gate did not let it start
    DISCARDED = "DISCARDED"  # it ended hot or slowed down, or with one that did; both sides of its block are repeated

    @property
    def is_fine(self) -> bool:
        """Say whether nothing is amiss with a run in which a launch ended so: it counts, or others were launched in its place."""
        return self in {Status.OK, Status.DISCARDED}


class ErrorClass(StrEnum):
    """The party at fault where a launch is not OK."""

    USER = "user"
    DEVICE = "device"
    HARNESS = "harness"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """A device, described well enough to know with what its figures may be compared."""

    address: str  # as on the command line: s25, virtual:s25, hub:s25, local
    family: str  # adb, virtual, local, ai_hub
    serial: str
    profile: str
    title: str
    soc_model: str
    cpu: str
    android_release: str | None
    fingerprint: str | None

    @property
    def is_hosted(self) -> bool:
        """Say whether a service runs single graphs on the device: without harness and images."""
        return self.family == HOSTED_FAMILY


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The files that were pushed to a device: `objects` maps sha256 to the absolute path there."""

    device: DeviceFacts
    root: str
    objects: dict[str, str]
    sent_bytes: int
    present_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Retry:
    """A device that was lost in a run, why, and for how long it was waited for until it was back as it was."""

    address: str
    reason: str
    away_s: float


@dataclass(frozen=True, kw_only=True)
class SequenceBlock:
    """Iterations of one task without a switch between them."""

    task: str
    warmup: int
    iterations: int


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """One fresh process. `launch` counts from 0 within the variant."""

    variant: Variant
    launch: int
    sequence: tuple[SequenceBlock, ...]
    side: str = ""  # of a comparison: A or B, and what that is

    @property
    def images(self) -> int:
        """Return how many images it paints, those of its warm-up included."""
        return sum(block.warmup + block.iterations for block in self.sequence)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of one launch (a fresh harness process, one variant) on one device; a failed launch has one too.

    `run_id` groups the launches of one `quadbench run`.
    """

    schema_version: int = SCHEMA_VERSION
    record_id: str
    run_id: str
    started_at: datetime  # aware, UTC
    ended_at: datetime
    recipe_name: str
    recipe_digest: str
    bundle_digest: str
    compiled_digest: str
    target: str
    device: DeviceFacts
    variant: Variant
    launch: int
    status: Status
    error_class: ErrorClass | None = None
    reason: str | None = None
    caveats: tuple[Caveat, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # with which the graphs ran: threads, memory
    state: dict[str, str] = field(default_factory=dict)  # the device's state before and after, flattened
    samples: Sequence[Sample] = ()  # in the order measured
    images: dict[str, str] = field(default_factory=dict)  # "<task>/<item>" -> PNG path relative to the results folder

    @cached_property
    def columns(self) -> Samples:
        """The samples column by column, for figures."""
        return Samples.of(self.samples)


class Better(StrEnum):
    """The direction in which a metric gets better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure's name in code, title and unit for readers, and its definition in a sentence or two."""

    name: str
    title: str
    unit: str
    better: Better
    definition: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric's value over `n` images, latents or predictions; a text in its place says why there is none.

    `worst` is the value of the image named `worst_item`, where each image has one of its own.
    """

    metric: Metric
    value: float | str
    n: int
    worst: float | None = None
    worst_item: str | None = None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Images of one task, `made` compared with `against`.

    In a run, `made` is a variant, or `reference` for the float reference itself, whose distance from the truth is the model's
    own; `against` is `reference` or `truth`. `device` is the address of what made it, None for this machine.
    """

    task: str
    device: str | None
    made: str
    against: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """All scores of a run, or of one pair of folders.

    `emulated` has, by target, the shared U-Net compiled for a Qualcomm HTP along each task's trajectory, as the emulator runs it.
    """

    schema_version: int = SCORES_SCHEMA_VERSION
    compared: tuple[Compared, ...]
    emulated: dict[str, HeldOut] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One `quadbench run`, whole: what the report shows."""

    run_id: str
    stored: Stored[Bundle]  # what devices ran whose profile `others` does not name
    others: dict[str, Stored[Bundle]] = field(default_factory=dict)  # by device profile
    records: tuple[RunRecord, ...]
    deployments: tuple[Deployment, ...]
    published: str | None = None  # the paper's table whose figures stand beside the measured ones
    scores: RunScores | None = None  # where `quadbench quality` was run on it
    planned: dict[Variant, int] = field(default_factory=dict)  # launches of each variant on a device
    is_cut_short: bool = False  # or still goes on
    recipe: str | None = None  # its text; None of a bundle that was run without one
    swept: dict[str, str] = field(default_factory=dict)  # what of the recipe a sweep set
    retries: tuple[Retry, ...] = ()  # in the order in which devices were back
    left_out: dict[str, str] = field(default_factory=dict)  # by address, why a device lacks launches

    @cached_property
    def in_order(self) -> tuple[RunRecord, ...]:
        """The launches in the order in which they were measured."""
        return tuple(sorted(self.records, key=lambda record: (record.started_at, record.device.address, record.launch)))

    @cached_property
    def devices(self) -> tuple[DeviceFacts, ...]:
        """Every device that measured or was deployed to, once, in order."""
        known = [record.device for record in self.in_order] + [deployment.device for deployment in self.deployments]
        return tuple({(device.address, device.serial): device for device in reversed(known)}.values())[::-1]

    @cached_property
    def by_device(self) -> Mapping[tuple[str, str], tuple[RunRecord, ...]]:
        """The launches of a device, by its address and serial, in the order in which they were measured."""
        groups = defaultdict[tuple[str, str], list[RunRecord]](list)
        for record in self.in_order:
            groups[record.device.address, record.device.serial].append(record)
        return {device: tuple(group) for device, group in groups.items()}

    @cached_property
    def by_place(self) -> Mapping[tuple[str, str, Variant], tuple[RunRecord, ...]]:
        """The launches of a device, by its address and serial, and of a variant, in the order in which they were measured."""
        groups = defaultdict[tuple[str, str, Variant], list[RunRecord]](list)
        for device, records in self.by_device.items():
            for record in records:
                groups[*device, record.variant].append(record)
        return {place: tuple(group) for place, group in groups.items()}

    @property
    def bundle(self) -> Bundle:
        """Return the bundle that the run measured; of several, which have tasks of the same names and inputs, the first."""
        return self.stored.artifact

    @property
    def bundles(self) -> tuple[Stored[Bundle], ...]:
        """Return every bundle that the run measured, once."""
        return tuple({bundle.artifact.digest: bundle for bundle in (self.stored, *self.others.values())}.values())

    def stored_on(self, device: DeviceFacts) -> Stored[Bundle]:
        """Return the bundle that a device ran, with its folder."""
        return self.others.get(device.profile, self.stored)

    def bundle_on(self, device: DeviceFacts) -> Bundle:
        """Return the bundle that a device ran."""
        return self.stored_on(device).artifact


def file_refs(value: object) -> Iterator[FileRef]:
    """Yield every file that an artifact names, in order, with repetitions."""
    if isinstance(value, FileRef):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from file_refs(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from file_refs(item)


def harness_files(bundle: Bundle, *, runs_float: bool) -> Iterator[FileRef]:
    """Yield the files of a bundle that launches open beside compiled graphs: adapters, tables and inputs; float graphs if asked.

    References and truths are for this machine alone, and without references no float graph runs.
    """
    runs_float = runs_float and has_references(bundle)
    floats = [graph for graph in bundle.graphs if runs_float and not graph.variant.is_quantized]
    adapters = [adapter for adapter in bundle.adapters if runs_float or adapter.variant.is_quantized]
    tasks = [(t.table, t.tensors, *((item.image, item.mask, item.blend) for item in t.items)) for t in bundle.tasks]
    yield from file_refs((*floats, *adapters, *tasks))


def has_references(bundle: Bundle) -> bool:
    """Say whether there are images to compare the float graph's with; a bundle with random weights has none."""
    return any(item.reference for task in bundle.tasks for item in task.items)


def with_own_graph(bundle: Bundle) -> tuple[str, ...]:
    """Return the tasks that have a U-Net of their own, in the bundle's order; that of an admitted adapter has none."""
    own = {graph.task for graph in bundle.graphs if graph.variant is Variant.PER_GRAPH}
    return tuple(task.name for task in bundle.tasks if task.name in own)


def without_own_graph(bundle: Bundle) -> tuple[str, ...]:
    """Return the tasks that lack a U-Net of their own where others have one: those of admitted adapters."""
    own = with_own_graph(bundle)
    return tuple(task.name for task in bundle.tasks if own and task.name not in own)


def item_counts(bundle: Bundle) -> dict[str, int]:
    """Return how many evaluation inputs each task has."""
    return {task.name: len(task.items) for task in bundle.tasks}


def tasks_of(bundle: Bundle, launch: LaunchPlan) -> tuple[TaskAssets, ...]:
    """Return the tasks that the launch runs, in the bundle's order.

    Raises:
        UnknownNameError: the launch names a task that the bundle lacks.
    """
    wanted = {block.task for block in launch.sequence}
    for name in sorted(wanted - {task.name for task in bundle.tasks}):
        raise UnknownNameError("task", name, (task.name for task in bundle.tasks))
    return tuple(task for task in bundle.tasks if task.name in wanted)


def components_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> dict[Component, Graph]:
    """Return text encoder and VAE, whose encoder is left out where no task takes an image; the quantized variants share theirs.

    Raises:
        ArtifactError: a graph is missing.
    """
    takes_images = any(task.kind is not TaskKind.TEXT_TO_IMAGE for task in bundle.tasks)
    encoder = (Component.VAE_ENCODER,) if takes_images else ()
    parts = (Component.TEXT_ENCODER, *encoder, Component.VAE_DECODER)
    source = Variant.FLOAT if variant is Variant.FLOAT else Variant.SHARED
    return {part: _graph(_graphs(bundle, compiled, variant), source, part) for part in parts}


def unets_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, Graph]:
    """Return the U-Nets by their names in the plan: `base`, or one for each task.

    Raises:
        ArtifactError: a graph is missing.
    """
    graphs = _graphs(bundle, compiled, variant)
    if variant.has_unet_per_task:
        return {task.name: _graph(graphs, variant.graphs, Component.UNET, task.name) for task in tasks}
    return {BASE_UNET: _graph(graphs, variant, Component.UNET)}


def adapters_of(bundle: Bundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, AdapterFile]:
    """Return the adapters that the tasks run, by name, in the variant's dtype; none where they are merged.

    Raises:
        ArtifactError: the bundle has no file of an adapter in that dtype.
    """
    if variant.has_unet_per_task:
        return {}
    known = {adapter.name: adapter for adapter in bundle.adapters if adapter.variant is variant.adapters}
    wanted = sorted({name for task in tasks for name in task.weights})
    for name in wanted:
        if name not in known:
            raise ArtifactError(f"bundle {bundle.digest} has no {variant} file of adapter '{name}'", hint="build it again")
    return {name: known[name] for name in wanted}


def factors_of(task: TaskAssets, files: Mapping[str, AdapterFile]) -> dict[str, float]:
    """Return by adapter the factor on its file's `up`, -1 to 1, with which it has the weight that the task gives it."""
    return {name: weight / files[name].weight for name, weight in task.weights.items()}


def mixes_of(tasks: Sequence[TaskAssets], files: Mapping[str, AdapterFile]) -> dict[str, dict[str, float]]:
    """Return, by its name, what tasks run that is not one adapter's file as it is: adapters with the factors on their `up`."""
    factors = {task.adapter: factors_of(task, files) for task in tasks if task.adapter is not None}
    return {name: mix for name, mix in factors.items() if mix != {name: 1.0}}


def _graphs(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> tuple[Graph, ...]:
    return bundle.graphs if variant is Variant.FLOAT else compiled.graphs


def _graph(graphs: Sequence[Graph], variant: Variant, component: Component, task: str | None = None) -> Graph:
    for graph in graphs:
        if (graph.variant, graph.component, graph.task) == (variant, component, task):
            return graph
    known = ", ".join(sorted(f"{graph.variant}/{graph.task or '-'}/{graph.component}" for graph in graphs)) or "none"
    raise ArtifactError(
        f"no graph {variant}/{task or '-'}/{component} is there; found: {known}", hint="build or compile it again"
    )


def lora_dtype(bundle: Bundle) -> str:
    """Return the type of the shared U-Net's LoRA inputs, as `int16`; `none` of a bundle without any."""
    graphs = [g for g in bundle.graphs if (g.variant, g.component) == (Variant.SHARED, Component.UNET)]
    dtypes = dict.fromkeys(spec.dtype for graph in graphs for spec in graph.inputs if spec.name.startswith(LORA_PREFIX))
    return ", ".join(dtypes) or "none"
