"""Runs as data classes: devices, launch plans and records, image scores. Functions select a launch's graphs and files."""

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
    HeldOutScores,
    StoredBundle,
    TaskAssets,
    TaskKind,
    Variant,
)
from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.launch_values import Sample, Samples
from quadbench.errors import ArtifactError, UnknownNameError

SCORES_SCHEMA_VERSION = 1

HOSTED_FAMILY = "ai_hub"
LIBRARY_PREFIX = "library."  # key prefix in `versions` for libraries that the harness loaded, with path and build id

BASE_UNET = "base"  # the plan's name for the U-Net shared by all tasks


class Status(StrEnum):
    """The outcomes of a launch. SKIPPED: never started. DISCARDED: to be repeated, as the device was hot or slow."""

    OK = "OK"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    SKIPPED = "SKIPPED"  # the gate did not let it start
    DISCARDED = "DISCARDED"  # this launch or another of its block ended hot or slowed down; the whole block is repeated

    @property
    def is_fine(self) -> bool:
        """Return True for an OK or DISCARDED launch (device hot or slow, to be repeated). Return False for all other statuses."""
        return self in {Status.OK, Status.DISCARDED}


class ErrorClass(StrEnum):
    """The cause of a failed launch. HARNESS: the device's program. INFRASTRUCTURE: quadbench, its host or a cloud service."""

    USER = "user"
    DEVICE = "device"
    HARNESS = "harness"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """The identity of a device: address, name of its device profile, chip, CPU, serial number, Android release and OS build."""

    address: str  # as given on the command line: s25, virtual:s25, hub:s25, local
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
        """Return True if the device is from Qualcomm AI Hub. This cloud service runs single graphs and generates no images."""
        return self.family == HOSTED_FAMILY


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The files on a device after a push: `objects` maps each SHA-256 to an absolute path on the device."""

    device: DeviceFacts
    root: str
    objects: dict[str, str]
    sent_bytes: int
    present_bytes: int
    seconds: float


RETRIES = 2  # by default, for each device that a run loses
WAIT_S = 300.0  # each time: enough for a phone to restart or for a person to plug it in


@dataclass(frozen=True, kw_only=True)
class Retry:
    """A record of a device that was lost in a run and came back after `away_s` seconds. `reason` explains the loss."""

    address: str
    reason: str
    away_s: float


@dataclass(frozen=True, kw_only=True)
class SequenceBlock:
    """Consecutive images of one task in a launch, warm-up first, without a task switch between them."""

    task: str
    warmup: int
    iterations: int


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """The plan of one launch (a fresh process): variant and sequence of tasks. `launch` counts from 0 in each variant."""

    variant: Variant
    launch: int
    sequence: tuple[SequenceBlock, ...]
    side: str = ""  # in a comparison: A or B, and its description

    @property
    def images(self) -> int:
        """Return how many images the launch generates, warm-up included."""
        return sum(block.warmup + block.iterations for block in self.sequence)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The record of one launch (a fresh harness process, one variant) on one device. A failed launch also has a record.

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
    settings: dict[str, str] = field(default_factory=dict)  # runtime settings of the graphs: threads, memory
    state: dict[str, str] = field(default_factory=dict)  # the device's state before and after, flattened
    samples: Sequence[Sample] = ()  # in the order measured
    images: dict[str, str] = field(default_factory=dict)  # "<task>/<item>" -> PNG path relative to the results folder

    @cached_property
    def columns(self) -> Samples:
        """The launch's measured values as Samples, a compact sequence of Sample objects (a value and what was measured)."""
        return Samples.from_samples(self.samples)


class BetterDirection(StrEnum):
    """The direction in which a metric improves: HIGHER or LOWER."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A quality metric: its name in code, its title and unit for readers, and its definition in a sentence or two."""

    name: str
    title: str
    unit: str
    better: BetterDirection
    definition: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """The value of a metric over `n` images, latents or predictions. If there is no score, `value` is a text with the reason.

    `worst` is the value of the image named `worst_item`, if the metric has a value per image.
    """

    metric: Metric
    value: float | str
    n: int
    worst: float | None = None
    worst_item: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """Scores of a task's images or latents, such as PSNR. `made` names the scored variant or folder, `against` the reference.

    In a run, `made` can also be `reference`: the float reference compared with `truth` shows the model's own distance from it.
    `device` is the address of the device that generated the images, None for this machine.
    """

    task: str
    device: str | None
    made: str
    against: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """All image scores of a run, or of two image folders that were compared with each other.

    `emulated` maps a target to the accuracy of the shared U-Net on Qualcomm's HTP emulator, along each task's trajectory.
    """

    schema_version: int = SCORES_SCHEMA_VERSION
    compared: tuple[ImageComparison, ...]
    emulated: dict[str, HeldOutScores] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One complete `quadbench run`: bundles, launch records, deployments and scores, as the report needs them."""

    run_id: str
    stored: StoredBundle  # the bundle of all devices without an entry in `others`
    others: dict[str, StoredBundle] = field(default_factory=dict)  # by device profile
    records: tuple[RunRecord, ...]
    deployments: tuple[Deployment, ...]
    published: str | None = None  # the paper table shown beside the measured figures
    scores: RunScores | None = None  # after `quadbench quality`
    planned: dict[Variant, int] = field(default_factory=dict)  # launches of each variant on a device
    is_cut_short: bool = False  # interrupted or still running
    recipe: str | None = None  # the recipe's text; None if a bundle was run without a recipe
    swept: dict[str, str] = field(default_factory=dict)  # recipe settings changed by a sweep
    retries: tuple[Retry, ...] = ()  # in the order in which devices came back
    left_out: dict[str, str] = field(default_factory=dict)  # by address, why a device lacks launches

    @cached_property
    def records_in_order(self) -> tuple[RunRecord, ...]:
        """The launch records, in order of measurement."""
        return tuple(sorted(self.records, key=lambda record: (record.started_at, record.device.address, record.launch)))

    @cached_property
    def devices(self) -> tuple[DeviceFacts, ...]:
        """A tuple with one DeviceFacts for each device of the run: a device that has a launch record or received files."""
        known = [record.device for record in self.records_in_order] + [deployment.device for deployment in self.deployments]
        return tuple({(device.address, device.serial): device for device in reversed(known)}.values())[::-1]

    @cached_property
    def by_device(self) -> Mapping[tuple[str, str], tuple[RunRecord, ...]]:
        """A dict from (device address, serial) to the device's launch records, a tuple in order of measurement."""
        groups = defaultdict[tuple[str, str], list[RunRecord]](list)
        for record in self.records_in_order:
            groups[record.device.address, record.device.serial].append(record)
        return {device: tuple(group) for device, group in groups.items()}

    @cached_property
    def by_device_and_variant(self) -> Mapping[tuple[str, str, Variant], tuple[RunRecord, ...]]:
        """A dict from (device address, serial, variant) to a tuple of all launch records with that key, oldest first."""
        groups = defaultdict[tuple[str, str, Variant], list[RunRecord]](list)
        for device, records in self.by_device.items():
            for record in records:
                groups[*device, record.variant].append(record)
        return {place: tuple(group) for place, group in groups.items()}

    @property
    def bundle(self) -> Bundle:
        """Return the bundle that was measured. If there were several, return the first: all have the same tasks and inputs."""
        return self.stored.artifact

    @property
    def bundles(self) -> tuple[StoredBundle, ...]:
        """Return the StoredBundles (bundle and folder path) that the run measured, as a tuple without duplicates."""
        return tuple({bundle.artifact.digest: bundle for bundle in (self.stored, *self.others.values())}.values())

    def stored_bundle_on(self, device: DeviceFacts) -> StoredBundle:
        """Return the StoredBundle (the bundle and the path of its folder) that a device ran."""
        return self.others.get(device.profile, self.stored)

    def bundle_on(self, device: DeviceFacts) -> Bundle:
        """Return the bundle that a device ran."""
        return self.stored_bundle_on(device).artifact


def file_refs(value: object) -> Iterator[FileRef]:
    """Yield each FileRef in nested dataclasses and tuples, in order of fields and items. Repeated FileRefs are yielded again."""
    if isinstance(value, FileRef):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from file_refs(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from file_refs(item)


def harness_files(bundle: Bundle, *, runs_float: bool) -> Iterator[FileRef]:
    """Yield FileRefs of the bundle's files that launches open besides compiled graphs: LoRA adapters, sampler tables and inputs.

    `runs_float` adds the float graphs, if there are reference images. References and truths stay on this machine.
    """
    runs_float = runs_float and has_references(bundle)
    floats = [graph for graph in bundle.graphs if runs_float and not graph.variant.is_quantized]
    adapters = [adapter for adapter in bundle.adapters if runs_float or adapter.variant.is_quantized]
    tasks = [(t.table, t.tensors, *((item.image, item.mask, item.blend) for item in t.items)) for t in bundle.tasks]
    yield from file_refs((*floats, *adapters, *tasks))


def has_references(bundle: Bundle) -> bool:
    """Return True if the bundle has reference images from the float model. Return False otherwise, as for random weights."""
    return any(item.reference for task in bundle.tasks for item in task.items)


def own_graph_tasks(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of tasks that have their own U-Net, in bundle order. Tasks added after the build have no own U-Net."""
    own = {graph.task for graph in bundle.graphs if graph.variant is Variant.PER_GRAPH}
    return tuple(task.name for task in bundle.tasks if task.name in own)


def shared_only_tasks(bundle: Bundle) -> tuple[str, ...]:
    """Return a tuple of names of the tasks that run only on the shared U-Net. Return () if no task has its own U-Net."""
    own = own_graph_tasks(bundle)
    return tuple(task.name for task in bundle.tasks if own and task.name not in own)


def item_counts(bundle: Bundle) -> dict[str, int]:
    """Return a dict from task name to its number of evaluation inputs."""
    return {task.name: len(task.items) for task in bundle.tasks}


def tasks_of(bundle: Bundle, launch: LaunchPlan) -> tuple[TaskAssets, ...]:
    """Return the tasks of a bundle that a launch plan runs, as a tuple of TaskAssets. Keep the order of the bundle's task list.

    Raises:
        UnknownNameError: the launch names a task that the bundle lacks.
    """
    wanted = {block.task for block in launch.sequence}
    for name in sorted(wanted - {task.name for task in bundle.tasks}):
        raise UnknownNameError("task", name, (task.name for task in bundle.tasks))
    return tuple(task for task in bundle.tasks if task.name in wanted)


def components_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> dict[Component, Graph]:
    """Return a dict from component to graph. Components: text encoder, VAE decoder and, if a task has input images, VAE encoder.

    Raises:
        ArtifactError: a graph is missing.
    """
    takes_images = any(task.kind is not TaskKind.TEXT_TO_IMAGE for task in bundle.tasks)
    encoder = (Component.VAE_ENCODER,) if takes_images else ()
    parts = (Component.TEXT_ENCODER, *encoder, Component.VAE_DECODER)
    source = Variant.FLOAT if variant is Variant.FLOAT else Variant.SHARED
    return {part: _graph(_graphs(bundle, compiled, variant), source, part) for part in parts}


def unets_of(bundle: Bundle, compiled: CompiledBundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, Graph]:
    """Return a dict from task name to the task's U-Net graph. For a variant with one U-Net for all tasks, the only key is `base`.

    Raises:
        ArtifactError: a graph is missing.
    """
    graphs = _graphs(bundle, compiled, variant)
    if variant.has_unet_per_task:
        return {task.name: _graph(graphs, variant.graph_variant, Component.UNET, task.name) for task in tasks}
    return {BASE_UNET: _graph(graphs, variant, Component.UNET)}


def adapters_of(bundle: Bundle, variant: Variant, tasks: Sequence[TaskAssets]) -> dict[str, AdapterFile]:
    """Return a dict from adapter name to AdapterFile for the adapters of `tasks`. Return {} if graphs have adapters merged in.

    Raises:
        ArtifactError: the bundle lacks an adapter file in that dtype.
    """
    if variant.has_unet_per_task:
        return {}
    known = {adapter.name: adapter for adapter in bundle.adapters if adapter.variant is variant.adapter_variant}
    wanted = sorted({name for task in tasks for name in task.weights})
    for name in wanted:
        if name not in known:
            raise ArtifactError(f"bundle {bundle.digest} has no {variant} file of adapter '{name}'", hint="build it again")
    return {name: known[name] for name in wanted}


def factors_of(task: TaskAssets, files: Mapping[str, AdapterFile]) -> dict[str, float]:
    """Return a dict from LoRA name to factor (-1 to 1): the task's weight divided by the largest absolute weight in any task."""
    return {name: weight / files[name].weight for name, weight in task.weights.items()}


def mixes_of(tasks: Sequence[TaskAssets], files: Mapping[str, AdapterFile]) -> dict[str, dict[str, float]]:
    """Return {name of adapter or mix: {LoRA name: factor, -1 to 1}} for `tasks`. Omit a LoRA that runs alone at factor 1."""
    factors = {task.adapter: factors_of(task, files) for task in tasks if task.adapter is not None}
    return {name: mix for name, mix in factors.items() if mix != {name: 1.0}}


def _graphs(bundle: Bundle, compiled: CompiledBundle, variant: Variant) -> tuple[Graph, ...]:
    return bundle.graphs if variant is Variant.FLOAT else compiled.graphs


def _graph(graphs: Sequence[Graph], variant: Variant, component: Component, task: str | None = None) -> Graph:
    for graph in graphs:
        if (graph.variant, graph.component, graph.task) == (variant, component, task):
            return graph
    known = ", ".join(sorted(f"{graph.variant}/{graph.task or '-'}/{graph.component}" for graph in graphs)) or "none"
    missing = f"the graph {variant}/{task or '-'}/{component} is missing; found: {known}"
    raise ArtifactError(missing, hint="build or compile the bundle again")


def lora_dtype(bundle: Bundle) -> str:
    """Return the dtype of the shared U-Net's LoRA inputs, such as `int16`; `none` if it has no LoRA inputs."""
    graphs = [g for g in bundle.graphs if (g.variant, g.component) == (Variant.SHARED, Component.UNET)]
    dtypes = dict.fromkeys(spec.dtype for graph in graphs for spec in graph.inputs if spec.name.startswith(LORA_PREFIX))
    return ", ".join(dtypes) or "none"
