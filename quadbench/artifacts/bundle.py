"""Bundles: graphs, adapters and tasks as files in one folder, before and after compiling, with what their build measured."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.names import Checked, FileName, Line, RelativePath, Sha256
from quadbench.errors import shown

KERNEL_NODES = "kernel_nodes"  # the metric; a sample for each graph and kind
KERNEL_KINDS = ("in_integers", "in_float", "quantize", "dequantize")

MIB = 2**20  # bytes, in which sizes are shown
SCHEMA_VERSION = 1
LORA_PREFIX = "lora."  # of the names of graph inputs that are LoRA weights
ArtifactT = TypeVar("ArtifactT", covariant=True)


class Variant(StrEnum):
    """The way in which a launch serves its tasks: from which graphs, and what it keeps in memory."""

    SHARED = "shared"  # one quantized base, adapters are inputs
    PER_GRAPH = "per-graph"  # one quantized U-Net per task, its adapter merged, its own encodings, loaded at each switch
    RESIDENT = "resident"  # the graphs of per-graph, all of them in memory from the start
    MERGED_AT_LOAD = (
        "merged-at-load"  # one quantized base without inputs for adapters, loaded at each switch with one in its weights
    )
    FLOAT = "float"  # the shared graph before quantization: the numerical reference on the device

    @property
    def is_quantized(self) -> bool:
        """Say whether the graphs are compiled for the target; the float graphs run as they were built."""
        return self is not Variant.FLOAT

    @property
    def has_unet_per_task(self) -> bool:
        """Say whether each task has a U-Net of its own with its adapter merged; no adapters are pushed then."""
        return self.graphs is Variant.PER_GRAPH

    @property
    def loads_at_switch(self) -> bool:
        """Say whether the U-Net is loaded anew at each switch of tasks."""
        return self in {Variant.PER_GRAPH, Variant.MERGED_AT_LOAD}

    @property
    def graphs(self) -> "Variant":
        """Return the variant under which a bundle holds the graphs that this one runs."""
        return Variant.PER_GRAPH if self is Variant.RESIDENT else self

    @property
    def adapters(self) -> "Variant":
        """Return the variant under which a bundle holds the adapters that this one takes."""
        return Variant.SHARED if self is Variant.MERGED_AT_LOAD else self


class Component(StrEnum):
    """The parts of a latent diffusion pipeline."""

    TEXT_ENCODER = "text_encoder"
    VAE_ENCODER = "vae_encoder"
    UNET = "unet"
    VAE_DECODER = "vae_decoder"


class TaskKind(StrEnum):
    """The inputs that a task takes: text; text and an image; or text, an image and a mask."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINT = "inpaint"


@dataclass(frozen=True, kw_only=True)
class FileRef:
    """A file inside an artifact's folder: POSIX path relative to it, sha256 in hex, size in bytes."""

    path: RelativePath
    sha256: Sha256
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A graph's input or output. `scale` is set on quantized ones, whose zero point is 0."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # NumPy's name: float32, int32, int16, int8
    scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """The number of those that run in 8 bits, and of all."""

    int8: int
    total: int

    @property
    def percent(self) -> float:
        """Return those in 8 bits in percent of all; 0 where there are none."""
        return 100 * self.int8 / self.total if self.total else 0.0


@dataclass(frozen=True, kw_only=True)
class Int8Share:
    """The parts of a U-Net that run in 8 bits: the base's layers, their parameters and work, and the LoRA products."""

    layers: Share
    parameters: Share
    multiply_accumulates: Share
    lora_products: Share


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX file. `task` is set only where the graph serves that task alone, `int8` only for quantized U-Nets.

    `data` holds weights of a graph that is too large for one file, or that takes an adapter into its weights as it is loaded. Its
    name is its sha256, as on a device; the graph refers to it by that name. `merge` is the graph that computes `data` anew, with
    an adapter added: its inputs are LoRA weights, its outputs the tensors of `data`.
    """

    variant: Variant
    component: Component
    task: FileName | None = None
    file: FileRef
    data: FileRef | None = None
    merge: FileRef | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    int8: Int8Share | None = None


def check_onnx_names(graph: Graph) -> Graph:
    """Return a bundle's graph as it is: the package onnx reads and writes a file as its name says, .json not as a protobuf."""
    for file in (graph.file, graph.merge):
        if file and not file.path.endswith(".onnx"):
            raise ValueError(f"{shown(file.path)} is no graph of a bundle; expected a name that ends in .onnx")
    return graph


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """A safetensors file of an adapter's tensors at its own ranks, named as LoRA inputs are, in the dtype of its variant.

    They are those of the adapter at `weight`, the one of greatest magnitude that a task gives it; for another `up` is scaled
    when loaded.
    """

    name: FileName
    variant: Variant  # SHARED (integers) or FLOAT
    file: FileRef
    rank: int
    sites: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TaskItem:
    """One evaluation input of a task. Images are 8-bit RGB PNG, the mask 8-bit grey PNG (255 = to be replaced).

    `blend` is the decoder's share in each pixel of the picture, 8-bit grey PNG; None where the picture is the decoder's alone.
    `reference` is the image of the Python float reference for the same noise; None where the weights are random.
    """

    name: FileName
    image: FileRef | None
    mask: FileRef | None
    blend: FileRef | None = None
    truth: FileRef | None
    reference: FileRef | None
    prompt: str
    input_ids: tuple[int, ...]
    negative_input_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TaskAssets:
    """A task as the harness runs it.

    `table` is JSON (see docs/formats.md, "Sampler tables"), `tensors` a safetensors file with `time_features` (steps, C) and, for
    each item, `noise.<item>` (1 + steps, 4, h, w): the noise of the start, then of each step.
    """

    name: FileName
    kind: TaskKind
    adapter: FileName | None  # the name of the mix where there is one
    scheme: str
    steps: int
    guidance: float
    table: FileRef
    tensors: FileRef
    items: tuple[TaskItem, ...]
    fit_error: float | None = None
    mix: dict[FileName, float] | None = None  # the adapters with their weights; None where it is one at weight 1, or none

    @property
    def weights(self) -> dict[str, float]:
        """Return the adapters that the task runs, each with its weight."""
        return self.mix or ({} if self.adapter is None else {self.adapter: 1.0})


@dataclass(frozen=True, kw_only=True)
class BaseDigests:
    """The base that an adapter's integers are made for: one graph under one LoRA profile, however it is compiled."""

    graph: str  # sha256 of the shared U-Net as quad wrote it
    profile: str  # digest of the encodings of all its tensors


@dataclass(frozen=True, kw_only=True)
class StepSqnr:
    """The SQNR of eps at one step of a task's sampler, over all its inputs; None where nothing differs."""

    step: int
    timestep: float
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class TrajectorySqnr:
    """The SQNR of eps against the float U-Net along a task's trajectories, step by step and over all steps together.

    Both U-Nets are fed what the float one's trajectory came to, so no error adds to another.
    """

    task: FileName
    variant: Line
    inputs: int
    sqnr_db: float | None
    steps: tuple[StepSqnr, ...]

    @property
    def worst(self) -> StepSqnr | None:
        """Return the step with the lowest SQNR; None if nothing differs at any."""
        known = [(step.sqnr_db, step) for step in self.steps if step.sqnr_db is not None]
        return min(known, key=lambda pair: pair[0])[1] if known else None


@dataclass(frozen=True, kw_only=True)
class ClippedTensor:
    """A tensor with values outside the range of its encoding: the share of its values, and how far the farthest lies outside.

    `beyond` is in widths of the range.
    """

    tensor: str
    share: float
    beyond: float


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """The activations of one U-Net that clip: the shared one under every task's adapter (`task` is None), or a task's own.

    `share` is that of all values of all `tensors`; `worst` are the first of the `clipped` tensors, the greatest share first.
    """

    variant: Line
    task: FileName | None
    runs: int
    tensors: int
    clipped: int
    share: float
    worst: tuple[ClippedTensor, ...]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The quantized U-Nets on at most `inputs` evaluation inputs of each task."""

    inputs: int
    trajectories: tuple[TrajectorySqnr, ...]
    clippings: tuple[Clipping, ...]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The nodes of a graph as the runtime's optimizer left it, by how they compute.

    `in_float` are all that compute and take no integers; `products_in_float` are the convolutions and matrix products among them.
    Nodes that only move values are not counted.
    """

    in_integers: int
    in_float: int
    products_in_float: int
    quantize: int  # QuantizeLinear
    dequantize: int  # DequantizeLinear

    @property
    def by_kind(self) -> dict[str, int]:
        """Return the numbers that records keep, by the kind that their samples are labelled with."""
        return {kind: getattr(self, kind) for kind in KERNEL_KINDS}

    @property
    def is_simulated(self) -> bool:
        """Say whether convolutions or matrix products between quantized activations are computed in float."""
        return self.quantize > 0 and self.products_in_float > 0


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A recipe as `quad` built it. `digest` is that of the inputs: the same inputs give the same digest and no new build."""

    schema_version: int = SCHEMA_VERSION
    kind: str = "bundle"
    digest: Sha256  # names its folder
    recipe_name: str
    recipe_digest: str
    precision: str
    tool_versions: dict[str, str]
    graphs: tuple[Annotated[Graph, Checked(check_onnx_names)], ...]
    adapters: tuple[AdapterFile, ...]
    tasks: tuple[TaskAssets, ...]
    profile: FileRef  # encodings of every tensor and how they were chosen, as JSON
    base: BaseDigests  # adapters of another base do not fit
    build_seconds: dict[str, float] = field(default_factory=dict)
    build_peak_bytes: int | None = None  # of the process that built it
    caveats: tuple[Caveat, ...] = ()
    held_out: HeldOut | None = None  # None where weights are random


@dataclass(frozen=True, kw_only=True)
class CompileCost:
    """The time and memory that compiling one graph took on this machine."""

    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class CompiledBundle:
    """A bundle's graphs made for one target. Everything else is still the bundle's. `parent_digest` is that of the graphs."""

    schema_version: int = SCHEMA_VERSION
    kind: str = "compiled-bundle"
    digest: Sha256  # names its folder
    parent_digest: str
    target: str  # the profile's backend, as `onnxruntime` or `qnn-v79-69`
    tool_versions: dict[str, str]
    graphs: tuple[Graph, ...]
    caveats: tuple[Caveat, ...] = ()
    costs: dict[str, CompileCost] = field(default_factory=dict)  # by the graph's path, where they were measured
    kernels: dict[str, Kernels] = field(default_factory=dict)  # by the graph's path, where the target is ONNX Runtime's CPU


@dataclass(frozen=True, kw_only=True)
class Stored(Generic[ArtifactT]):
    """An artifact with the folder that holds its files.

    `is_reused` says that the folder was there already: the same inputs had made it before.
    """

    artifact: ArtifactT
    folder: Path
    is_reused: bool = False

    def path(self, file: FileRef) -> Path:
        """Return where a file of the artifact lies on this machine."""
        return self.folder / file.path
