"""Artifacts: the nouns that pass between stages.

Recipe --quad--> Bundle --compile--> CompiledBundle --deploy--> Deployment --measure--> RunRecord --report--> HTML, tables

Frozen data without behaviour. A Bundle and a CompiledBundle are folders; `manifest.json` in them is the same data as JSON.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from quadbench.scores import RunScores

SCHEMA_VERSION = 1
HOSTED_FAMILY = "ai_hub"
LORA_PREFIX = "lora."  # of the names of graph inputs that are LoRA weights


class Variant(StrEnum):
    """Which graphs a launch runs."""

    SHARED = "shared"  # one quantized base, adapters are inputs
    PER_GRAPH = "per-graph"  # one quantized U-Net per task, its adapter merged, its own encodings
    FLOAT = "float"  # the shared graph before quantization: the numerical reference on the device

    @property
    def is_quantized(self) -> bool:
        """Whether its graphs are compiled for the target; the float graphs run as they were built."""
        return self is not Variant.FLOAT


class Component(StrEnum):
    """The parts of a latent diffusion pipeline."""

    TEXT_ENCODER = "text_encoder"
    VAE_ENCODER = "vae_encoder"
    UNET = "unet"
    VAE_DECODER = "vae_decoder"


class TaskKind(StrEnum):
    """What a task takes: text, text and an image, or text, an image and a mask."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINT = "inpaint"


class Status(StrEnum):
    """How a launch ended."""

    OK = "OK"
    PARTIAL = "PARTIAL"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    SKIPPED = "SKIPPED"


class ErrorClass(StrEnum):
    """Whose fault a launch that is not OK was."""

    USER = "user"
    DEVICE = "device"
    HARNESS = "harness"
    INFRASTRUCTURE = "infrastructure"


class Caveat(StrEnum):
    """A doubt about a figure; shown beside it and kept out of regression series."""

    VIRTUAL_DEVICE = "VIRTUAL_DEVICE"
    EMULATED_NPU = "EMULATED_NPU"
    FEW_SAMPLES = "FEW_SAMPLES"
    THROTTLED = "THROTTLED"
    CPU_FALLBACK = "CPU_FALLBACK"
    RANDOM_WEIGHTS = "RANDOM_WEIGHTS"
    DEBUG_BUILD = "DEBUG_BUILD"
    LOADED_HOST = "LOADED_HOST"

    @property
    def advice(self) -> str:
        """One sentence: what the figure is not good for, and what would cure it."""
        return _ADVICE[self]


_ADVICE = {
    Caveat.VIRTUAL_DEVICE: "Times and memory are this machine's CPU, not a phone's NPU; attach a phone for its own figures.",
    Caveat.EMULATED_NPU: "Numerics are the NPU's, by emulation; times are the emulator's and are left out.",
    Caveat.FEW_SAMPLES: "Too few samples for the percentiles; raise measure.iterations or measure.launches.",
    Caveat.THROTTLED: "The device was hot or its clocks were capped; let it cool and run again.",
    Caveat.CPU_FALLBACK: "Some nodes ran on the CPU instead of the target; the run names them.",
    Caveat.RANDOM_WEIGHTS: "The weights are random: sizes and times hold, pictures and quality do not.",
    Caveat.DEBUG_BUILD: "The harness is a debug build; build it with CMAKE_BUILD_TYPE=Release.",
    Caveat.LOADED_HOST: "Other work was running on this machine's CPU while it was measured.",
}


@dataclass(frozen=True, kw_only=True)
class FileRef:
    """A file inside an artifact's folder: POSIX path relative to it, sha256 in hex, size in bytes."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A graph's input or output. `scale` is set on quantized ones, whose zero point is 0."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # NumPy's name: float32, int32, int16, int8
    scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file. `task` is set only where the graph serves that task alone.

    `data` holds the weights of a graph that is too large for one file. Its name is its sha256, as on a device; the graph refers
    to it by that name.
    """

    variant: Variant
    component: Component
    task: str | None = None
    file: FileRef
    data: FileRef | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """An adapter as the graph takes it: a safetensors file with one tensor per LoRA input, in the dtype of its variant."""

    name: str
    variant: Variant  # SHARED (integers) or FLOAT
    file: FileRef
    rank: int
    sites: int


@dataclass(frozen=True, kw_only=True)
class TaskItem:
    """One evaluation input of a task. Images are 8-bit RGB PNG, the mask 8-bit grey PNG (255 = to be replaced).

    `reference` is the image of the Python float reference for the same noise; None where the weights are random.
    """

    name: str
    image: FileRef | None
    mask: FileRef | None
    truth: FileRef | None
    reference: FileRef | None
    prompt: str
    input_ids: tuple[int, ...]
    negative_input_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TaskAssets:
    """A task as the harness runs it.

    `table` is JSON (see docs/design.md, "Sampler tables"), `tensors` a safetensors file with `time_features` (steps, C) and, for
    each item, `noise.<item>` (1 + steps, 4, h, w): the noise of the start, then of each step.
    """

    name: str
    kind: TaskKind
    adapter: str | None
    scheme: str
    steps: int
    guidance: float
    table: FileRef
    tensors: FileRef
    items: tuple[TaskItem, ...]
    fit_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class BaseDigests:
    """What an adapter's integers mean something to: one base under one profile, however it is compiled."""

    graph: str  # sha256 of the shared U-Net as quad wrote it
    profile: str  # digest of the profile's encodings


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What quad made of a recipe. `digest` is that of its inputs: the same inputs give the same digest and no new build."""

    schema_version: int = SCHEMA_VERSION
    kind: str = "bundle"
    digest: str
    recipe_name: str
    recipe_digest: str
    precision: str
    tool_versions: dict[str, str]
    graphs: tuple[Graph, ...]
    adapters: tuple[AdapterFile, ...]
    tasks: tuple[TaskAssets, ...]
    profile: FileRef  # the quantization profile: encodings of every tensor, as JSON
    base: BaseDigests  # adapters of another base or profile do not fit
    build_seconds: dict[str, float] = field(default_factory=dict)
    build_peak_bytes: int | None = None  # of the process that built it
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CompileCost:
    """What compiling one graph took on this machine."""

    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class CompiledBundle:
    """A bundle's graphs made for one target. Everything else is still the bundle's. `parent_digest` is that of the graphs."""

    schema_version: int = SCHEMA_VERSION
    kind: str = "compiled-bundle"
    digest: str
    parent_digest: str
    target: str  # the profile's backend, as `onnxruntime` or `qnn-v79-69`
    tool_versions: dict[str, str]
    graphs: tuple[Graph, ...]
    caveats: tuple[Caveat, ...] = ()
    costs: dict[str, CompileCost] = field(default_factory=dict)  # by the graph's path, where they were measured


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What is known of a device: enough to know with what its figures may be compared."""

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
        """Whether a service runs single graphs on it: no harness, no images."""
        return self.family == HOSTED_FAMILY


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What lies on a device: `objects` maps sha256 -> absolute path there."""

    device: DeviceFacts
    root: str
    objects: dict[str, str]
    sent_bytes: int
    present_bytes: int
    deleted_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measured value. Nanoseconds, bytes and decibels as the metric's name says; `labels` are the event's other words."""

    metric: str
    value: float
    task: str | None = None
    component: str | None = None
    iteration: int | None = None
    step: int | None = None
    item: str | None = None
    is_warmup: bool = False
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What one launch (a fresh harness process, one variant) measured on one device; a failed launch is a record too.

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
    state: dict[str, str] = field(default_factory=dict)  # the device's state before and after, flattened
    samples: tuple[Sample, ...] = ()
    images: dict[str, str] = field(default_factory=dict)  # "<task>/<item>" -> PNG path relative to the results folder


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One `quadbench run`, whole: what the report shows."""

    run_id: str
    bundle: Bundle
    bundle_folder: Path
    records: tuple[RunRecord, ...]
    deployments: tuple[Deployment, ...]
    published: str | None = None  # the paper's table whose figures stand beside the measured ones
    scores: RunScores | None = None  # where `quadbench quality` was run on it
