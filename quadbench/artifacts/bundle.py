"""Bundles: folders with a build's graphs, LoRA adapters, tasks and scores. A compiled bundle is for one runtime and chip."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from quadbench.artifacts.caveats import Caveat
from quadbench.artifacts.safe_text import FileName, Line, RelativePath, Sha256, ValidatedBy
from quadbench.errors import quote

KERNEL_NODES = "kernel_nodes"  # a metric with one sample for each graph and kind of kernel
KERNEL_KINDS = ("in_integers", "in_float", "quantize", "dequantize")

MIB = 2**20  # bytes; sizes are shown in MiB
SCHEMA_VERSION = 1
LORA_PREFIX = "lora."  # names of LoRA graph inputs begin with it
NOISE_PREFIX = "noise."  # names of an item's noise in a task's tensors begin with it
ArtifactT = TypeVar("ArtifactT", covariant=True)


class Variant(StrEnum):
    """A way to run several tasks in one process on the device. It decides which graphs run and which of them stay in memory."""

    SHARED = "shared"  # one quantized base, adapters are inputs
    PER_GRAPH = "per-graph"  # one quantized U-Net per task with its adapter merged and its own encodings, loaded at each switch
    RESIDENT = "resident"  # the per-graph U-Nets, all loaded at the start
    CONTEXT_SHARED = "context-shared"  # the same in one context binary, where the chip's compiler stores equal weights once
    PATCHED = "patched"  # one per-graph U-Net, and a patch for each other; each switch makes the task's U-Net from both
    MERGED_AT_LOAD = (
        "merged-at-load"  # one quantized base without LoRA inputs; each switch loads it with an adapter merged into its weights
    )
    FLOAT = "float"  # the shared graph before quantization: the numerical reference on the device

    @property
    def is_quantized(self) -> bool:
        """Return whether the variant's graphs are quantized: true except for `float`. Only quantized graphs are compiled."""
        return self is not Variant.FLOAT

    @property
    def has_unet_per_task(self) -> bool:
        """Return whether each task has a U-Net with the task's adapter merged in. If true, devices need no adapter files."""
        return self.unet_variant is Variant.PER_GRAPH

    @property
    def loads_at_switch(self) -> bool:
        """Return whether each switch between tasks loads a U-Net: true for `per-graph`, `patched` and `merged-at-load`."""
        return self in {Variant.PER_GRAPH, Variant.PATCHED, Variant.MERGED_AT_LOAD}

    @property
    def is_repacked(self) -> bool:
        """Return whether the U-Nets are the `per-graph` ones in other files, which compiling a bundle makes."""
        return self in {Variant.CONTEXT_SHARED, Variant.PATCHED}

    @property
    def unet_variant(self) -> "Variant":
        """Return the variant whose U-Nets predict what this variant's do: `per-graph` if these are its U-Nets, else itself."""
        return Variant.PER_GRAPH if self.is_repacked else self.graph_variant

    @property
    def graph_variant(self) -> "Variant":
        """Return the variant whose graph files this variant runs: `per-graph` for `resident`, otherwise this variant."""
        return Variant.PER_GRAPH if self is Variant.RESIDENT else self

    @property
    def adapter_variant(self) -> "Variant":
        """Return the variant whose adapter files this variant loads: `shared` for `merged-at-load`, otherwise this one."""
        return Variant.SHARED if self is Variant.MERGED_AT_LOAD else self


class Component(StrEnum):
    """A part of a latent diffusion pipeline: text encoder, VAE encoder, U-Net or VAE decoder."""

    TEXT_ENCODER = "text_encoder"
    VAE_ENCODER = "vae_encoder"
    UNET = "unet"
    VAE_DECODER = "vae_decoder"


class TaskKind(StrEnum):
    """The inputs of a task: text alone, text and an image, or text with an image and a mask."""

    TEXT_TO_IMAGE = "text-to-image"
    IMAGE_TO_IMAGE = "image-to-image"
    INPAINT = "inpaint"


@dataclass(frozen=True, kw_only=True)
class FileRef:
    """A file inside an artifact's folder: relative POSIX path, SHA-256 in hex and size in bytes."""

    path: RelativePath
    sha256: Sha256
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output tensor of a graph. `scale` is the quantization scale (zero point 0), or None for unquantized tensors."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # NumPy's name: float32, int32, int16, int8
    scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Int8Fraction:
    """The 8-bit fraction of a U-Net's layers, parameters, multiply-accumulates or LoRA matrix products: `int8` of `total`."""

    int8: int
    total: int

    @property
    def percent(self) -> float:
        """Return `int8` as a percentage of `total`, from 0 to 100. Return 0 if `total` is 0."""
        return 100 * self.int8 / self.total if self.total else 0.0


@dataclass(frozen=True, kw_only=True)
class Int8Share:
    """The 8-bit part of a U-Net: counts of layers, parameters, multiply-accumulates and LoRA matrix products."""

    layers: Int8Fraction
    parameters: Int8Fraction
    multiply_accumulates: Int8Fraction
    lora_products: Int8Fraction


@dataclass(frozen=True, kw_only=True)
class Graph:
    """An ONNX graph. `task` is None if all tasks use the graph. `int8` counts 8-bit layers and operations (quantized U-Nets).

    `data` is an external weights file, for graphs too large for one file or with an adapter merged at load. It is named by its
    SHA-256, and the graph refers to it by that name. `merge` is a graph that computes `data` with an adapter added: its inputs
    are LoRA weights, its outputs the tensors of `data`. `patch` is what turns `file` into the task's graph (`patched`); if it
    is None, `file` is the task's graph. Graphs of `context-shared` have one context binary as their `data`.
    """

    variant: Variant
    component: Component
    task: FileName | None = None
    file: FileRef
    data: FileRef | None = None
    merge: FileRef | None = None
    patch: FileRef | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    int8: Int8Share | None = None


def check_onnx_names(graph: Graph) -> Graph:
    """Return the graph. Raise ValueError if `file` or `merge`, the graph's ONNX files, has a name that does not end in .onnx."""
    for file in (graph.file, graph.merge):
        if file and not file.path.endswith(".onnx"):
            raise ValueError(f"{quote(file.path)} is not a graph of a bundle; expected a name that ends in .onnx")
    return graph


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """A safetensors file with one adapter's LoRA tensors in the adapter's own rank. A graph's LoRA inputs may have a higher rank.

    The variant determines the dtype. The values are multiplied by `weight`, the greatest absolute weight that a task gives to
    the adapter. For a task with a smaller weight, `up` is scaled at loading.
    """

    name: FileName
    variant: Variant  # SHARED (integers) or FLOAT
    file: FileRef
    rank: int
    sites: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TaskItem:
    """One evaluation input of a task: prompt, image, mask. Images are 8-bit RGB PNG, masks 8-bit grey PNG (255 = repaint).

    `blend` is the weight of the decoded picture in each pixel (8-bit grey PNG), None to use the decoded picture alone. `truth` is
    the right image, `reference` that of the Python float reference from the same noise, None for random weights. `tokens` are the
    prompt's token ids for each input of the text encoder's graph, `negative_tokens` those of the negative prompt:
    None for zeros in place of the text encoder's outputs.
    """

    name: FileName
    image: FileRef | None
    mask: FileRef | None
    blend: FileRef | None = None
    truth: FileRef | None
    reference: FileRef | None
    prompt: str
    tokens: dict[str, tuple[int, ...]] = field(hash=False)
    negative_tokens: dict[str, tuple[int, ...]] | None = field(hash=False)


@dataclass(frozen=True, kw_only=True)
class TaskAssets:
    """A task's settings and evaluation inputs. `table` and `tensors` are files with the sampler's coefficients and noise.

    `table` is JSON (see docs/formats.md, "Sampler tables"), `tensors` a safetensors file. It has the U-Net's inputs that depend
    on the step (steps, C), such as `time_features`, or on the task (1, C). For each item it has `noise.<item>` (1 + steps, 4, h,
    w): the initial noise, then the noise of each step.
    """

    name: FileName
    kind: TaskKind
    adapter: FileName | None  # for a mix of adapters, the name of the mix
    scheme: str
    steps: int
    guidance: float
    table: FileRef
    tensors: FileRef
    items: tuple[TaskItem, ...]
    fit_error: float | None = None
    mix: dict[FileName, float] | None = None  # adapter weights; None for a single adapter at weight 1, or for no adapter

    @property
    def weights(self) -> dict[str, float]:
        """Return the weights of the task's LoRA adapters, as a dict from adapter name to weight. Without adapters, return {}."""
        return self.mix or ({} if self.adapter is None else {self.adapter: 1.0})


@dataclass(frozen=True, kw_only=True)
class BaseDigests:
    """Digests of a base U-Net for which adapters are quantized: `graph` is the ONNX file's, `profile` the encodings'."""

    graph: str  # sha256 of the shared U-Net as quad wrote it
    profile: str  # digest of the encodings of all tensors of that U-Net


@dataclass(frozen=True, kw_only=True)
class StepSqnr:
    """The SQNR of a quantized U-Net's noise predictions at one sampler step. `sqnr_db` is None if the error is zero."""

    step: int
    timestep: float
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class TrajectorySqnr:
    """The SQNR of a quantized U-Net's noise predictions against the float U-Net, per sampler step of a task and over all steps.

    Both U-Nets get the inputs of the float trajectory, so errors do not accumulate over steps.
    """

    task: FileName
    variant: Line
    inputs: int
    sqnr_db: float | None
    steps: tuple[StepSqnr, ...]

    @property
    def worst(self) -> StepSqnr | None:
        """Return the sampler step with the lowest SQNR. Return None if quantization causes no error at any step."""
        known = [(step.sqnr_db, step) for step in self.steps if step.sqnr_db is not None]
        return min(known, key=lambda pair: pair[0])[1] if known else None


@dataclass(frozen=True, kw_only=True)
class ClippedTensor:
    """A tensor with values outside its quantization range. `share` is the fraction of such values. `beyond` is the distance
    of the farthest value from the range, divided by the range's width (maximum minus minimum).
    """

    tensor: str
    share: float
    beyond: float


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """A U-Net's tensors and values that quantization clips, counted. `task` is None if all tasks share the U-Net.

    `clipped` of `tensors` tensors have clipped values; `worst` lists the worst. `share` is the fraction of all values clipped.
    """

    variant: Line
    task: FileName | None
    runs: int
    tensors: int
    clipped: int
    share: float
    worst: tuple[ClippedTensor, ...]


@dataclass(frozen=True, kw_only=True)
class HeldOutScores:
    """SQNR and clipping of quantized U-Nets on evaluation inputs, at most `inputs` per task. Calibration uses other inputs."""

    inputs: int
    trajectories: tuple[TrajectorySqnr, ...]
    clippings: tuple[Clipping, ...]


@dataclass(frozen=True, kw_only=True)
class KernelCounts:
    """Counts of a graph's nodes, optimized by ONNX Runtime, that compute in integers, compute in floats, quantize or dequantize.

    `in_float` counts nodes that compute without integer inputs; `products_in_float` the convolutions and matrix products among
    them. Nodes that only move values are not counted.
    """

    in_integers: int
    in_float: int
    products_in_float: int
    quantize: int  # QuantizeLinear
    dequantize: int  # DequantizeLinear

    @property
    def by_kind(self) -> dict[str, int]:
        """Return a dict from node kind (`in_integers`, `in_float`, `quantize`, `dequantize`) to the number of graph nodes."""
        return {kind: getattr(self, kind) for kind in KERNEL_KINDS}

    @property
    def is_simulated(self) -> bool:
        """Return whether a graph only simulates integers: activations are quantized, but some Convs or MatMuls run in float."""
        return self.quantize > 0 and self.products_in_float > 0


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A build's graphs, adapters and tasks. `digest` identifies the build's inputs. Builds with equal inputs share a bundle."""

    schema_version: int = SCHEMA_VERSION
    kind: str = "bundle"
    digest: Sha256  # names its folder
    recipe_name: str
    recipe_digest: str
    precision: str
    tool_versions: dict[str, str]
    graphs: tuple[Annotated[Graph, ValidatedBy(check_onnx_names)], ...]
    adapters: tuple[AdapterFile, ...]
    tasks: tuple[TaskAssets, ...]
    profile: FileRef  # JSON: the encoding of every tensor, and how it was chosen
    base: BaseDigests  # only adapters quantized for this base fit
    build_seconds: dict[str, float] = field(default_factory=dict)
    build_peak_bytes: int | None = None  # peak memory of the build process
    caveats: tuple[Caveat, ...] = ()
    held_out: HeldOutScores | None = None  # None where weights are random


@dataclass(frozen=True, kw_only=True)
class CompileCost:
    """The time in seconds and the peak memory in bytes that compiling one graph took on the host."""

    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class CompiledBundle:
    """A bundle's quantized graphs, compiled for one backend. `parent_digest` is the digest of the graphs before compiling."""

    schema_version: int = SCHEMA_VERSION
    kind: str = "compiled-bundle"
    digest: Sha256  # names its folder
    parent_digest: str
    target: str  # the profile's backend, as `onnxruntime` or `qnn-v79-69`
    tool_versions: dict[str, str]
    graphs: tuple[Graph, ...]
    caveats: tuple[Caveat, ...] = ()
    costs: dict[str, CompileCost] = field(default_factory=dict)  # by graph path, if measured
    kernels: dict[str, KernelCounts] = field(default_factory=dict)  # by graph path, if the target is ONNX Runtime on the CPU


@dataclass(frozen=True, kw_only=True)
class StoredArtifact(Generic[ArtifactT]):
    """An artifact together with the folder that holds its files.

    `is_reused` is true if an earlier build had already made the folder from the same inputs.
    """

    artifact: ArtifactT
    folder: Path
    is_reused: bool = False

    def path(self, file: FileRef) -> Path:
        """Return the local path of an artifact's file: the artifact's folder, joined with the relative path in `file`."""
        return self.folder / file.path


StoredBundle = StoredArtifact[Bundle]
StoredCompiled = StoredArtifact[CompiledBundle]
