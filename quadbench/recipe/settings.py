"""Settings of a recipe: precision, gate (limits on device state), runtime, calibration, LoRA encodings, distillation."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, assert_never

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from quadbench.errors import UserError, quote
from quadbench.spec import NAME_EXPECTED, Name, Problem, Spec, is_name, read_file, refuse
from quadbench.spec.spec_model import TextPattern, resolve_beside

FLOAT_LABEL = "w8a32"  # 8-bit weights, 32-bit float activations


class W8A16(Spec):
    """Quantization with 8-bit weights and 16-bit activations in the whole U-Net."""

    scheme: Literal["w8a16"]
    """Chooses 16 bits for all activations."""
    int8_percent: ClassVar[int] = 0


class W8A8(Spec):
    """Quantization with 8-bit weights and 8-bit activations in the whole U-Net."""

    scheme: Literal["w8a8"]
    """Chooses 8 bits for all activations."""
    int8_percent: ClassVar[int] = 100


class Mixed(Spec):
    """Quantization of U-Net activations to 8 bits in some layers and 16 in others. Layers that lose least accuracy get 8 bits."""

    scheme: Literal["mixed"]
    """Chooses W8A8 for the layers with a given share of the parameters, and W8A16 for the others."""
    int8_percent: int = Field(ge=0, le=100, examples=["30"])
    """The percentage of the U-Net's parameters in W8A8 layers, from 0 (as w8a16) to 100 (as w8a8)."""


class FloatActivations(Spec):
    """Quantization of weights and LoRA inputs. Activations in U-Net, text encoder and VAE stay float, which only CPUs can run."""

    scheme: Annotated[Literal["w8a32", "float"], AfterValidator(lambda _: FLOAT_LABEL)]
    """Chooses float for all activations; weights and LoRA inputs stay integers. Only ONNX Runtime's CPU provider runs it.
    `float` is the same as `w8a32`."""


_LABEL = TextPattern(
    pattern="(w8a16|w8a8|w8a32|float|mixed-(100|[1-9]?[0-9]))",
    expected="w8a16, w8a8, w8a32, or mixed-N with N percent of the parameters in 8 bits, as mixed-30",
)


def _in_full(given: Any) -> Any:
    """Expand a label: `mixed-30` to {scheme: mixed, int8_percent: 30}, `w8a8` to {scheme: w8a8}. Return non-text as is."""
    if not isinstance(given, str):
        return given
    if not _LABEL.matches(given):
        raise ValueError(f"expected {_LABEL.expected}, found text {quote(given)}")
    scheme, _, share = given.partition("-")
    return {"scheme": scheme, "int8_percent": int(share)} if share else {"scheme": scheme}


_Activations: TypeAlias = Annotated[W8A16 | W8A8 | Mixed | FloatActivations, Field(discriminator="scheme")]


class Precision(Spec):
    """The bit widths of the U-Net's weights, activations and LoRA inputs. Activations can stay float."""

    weights: Literal["int8"]
    """The base model's weights have 8 bits, and one scale per output channel."""
    activations: Annotated[
        _Activations,
        BeforeValidator(_in_full, json_schema_input_type=_Activations | Annotated[str, _LABEL]),
        Field(examples=["w8a16"]),
    ]
    """The scheme of the activations' bit widths: w8a16, w8a8, mixed, or w8a32, in which activations stay float. One word is
    enough: `w8a16`, `w8a8`, `w8a32`, `mixed-30`."""
    lora: Literal["int16", "int8"]
    """The LoRA inputs have 16 or 8 bits, one scale per tensor, and the zero point 0."""

    @property
    def label(self) -> str:
        """Return the precision as one word: `w8a16`, `w8a8`, `mixed-30` or `w8a32`."""
        match self.activations:
            case Mixed(int8_percent=percent):
                return f"mixed-{percent}"
            case FloatActivations():
                return FLOAT_LABEL
            case W8A16() | W8A8():
                return self.activations.scheme
            case _:
                assert_never(self.activations)


def int8_percent_of(label: str) -> int:
    """Return the percentage of 8-bit parameters that a precision label states: 30 for `mixed-30`, 100 for `w8a8`, else 0."""
    scheme, _, share = label.partition("-")
    if scheme == "mixed" and share.isdecimal():
        return int(share)
    return W8A8.int8_percent if scheme == "w8a8" else 0


Core = Annotated[int, Field(ge=0, le=1023)]

MAX_SWITCHES = 10_000
_MAX_BYTES = 2**20  # the most bytes of a trace file: MAX_SWITCHES of the longest names, and as much for comments


class Gate(Spec):
    """Limits on a device's temperature, battery, load and memory, checked before each launch. If the device does not meet them
    within `wait_s` seconds, the launch is skipped. Values that the device does not report are not checked.

    A launch that leaves the device too hot or throttled is discarded. Then its whole block, of all variants, is repeated.
    """

    max_thermal_status: int = Field(default=1, ge=0, le=6)
    """The highest of Android's thermal statuses, 0 (none) to 6 (shutdown); from 2 (moderate) on, the foreground app slows down.
    The default is 1."""
    max_skin_c: float | None = Field(default=None, ge=0, le=150)
    """The highest skin temperature, 0 to 150 degrees Celsius. The default is null: only the thermal status counts."""
    allows_throttled: bool = False
    """True measures with throttled CPUs or NPUs or capped clocks and adds a caveat, instead of waiting. The default is false."""
    min_battery_percent: float = Field(default=20.0, ge=0, le=100)
    """The lowest battery charge in percent, 0 to 100. The default is 20."""
    max_busy_percent: float | None = Field(default=None, ge=0, le=100)
    """The highest CPU load of other processes in percent, 0 to 100. The default is null: 50 on a phone. Devices that use this
    machine's CPU then get a caveat instead of a limit, because other work always runs on a build host."""
    min_free_mb: int = Field(default=256, ge=0, le=1_048_576)
    """The least available memory in MiB, 0 to 1048576. The default is 256."""
    wait_s: float = Field(default=600.0, ge=0, le=86_400)
    """The longest time in seconds, up to 86400 (a day), that the gate waits. The default is 600."""
    retries: int = Field(default=2, ge=0, le=100)
    """The number of blocks, 0 to 100, that a device can repeat in a run. After that, a launch counts and has a caveat. So does
    every launch with `order: sequential`, which has no blocks. The default is 2."""


def _differ(cores: tuple[int, ...]) -> tuple[int, ...]:
    twice = [core for core, count in Counter(cores).items() if count > 1]
    if twice:
        raise ValueError(f"core {twice[0]} occurs more than once")
    return cores


class Runtime(Spec):
    """The CPU threads and the memory settings with which a device runs graphs."""

    threads: int = Field(default=2, ge=1, le=64)
    """The number of CPU threads per operator, 1 to 64. The default is 2."""
    cores: Annotated[tuple[Core, ...], AfterValidator(_differ)] = Field(default=(), max_length=64)
    """The numbers of the cores on which the harness may run, as for `taskset -c`. The default is none: any core."""
    thread_pool: Literal["shared", "session"] = "shared"
    """`shared`: all graphs use the same threads; `session`: each graph has its own threads. The default is shared."""
    arena: Literal["none", "session", "shared"] = "none"
    """The arena that keeps memory for the next run instead of freeing it: `session`, one for each graph; `shared`, one for all
    graphs; `none`, freed memory is kept as far as it does not raise the peak. An arena raises it. The default is none."""
    preload: Literal["none", "next", "all"] = "none"
    """The adapters that are read before their task begins: `none`; `next`, those of the next task while a task runs; `all`, as
    many as fit into the cache, before the first task. The default is none."""
    adapter_cache_mb: int = Field(default=512, ge=1, le=1_048_576)
    """The most memory in MiB, 1 to 1048576, that adapters may take. The least recently used adapter is dropped first, the
    running one never. The default is 512."""
    memory_budget_mb: int | None = Field(default=None, ge=1, le=1_048_576)
    """The memory in MiB, 1 to 1048576, that loaded graphs may take. If it is too little, text encoder and VAE are unloaded, and
    loaded again when needed; the U-Net stays loaded. The default is null: everything stays loaded."""


def _from_trace(value: Any, info: ValidationInfo) -> Any:
    """Return the task names in a list, or in the text file at path `value`, as a tuple. Any other value is returned unchanged."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    path = resolve_beside(Path(value), info)
    try:
        lines = read_file(path, fault=UserError, max_bytes=_MAX_BYTES).decode("utf-8-sig").splitlines()
    except (UserError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a trace of task names: {error}") from error
    names = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")}
    for number, name in names.items():
        if not is_name(name):
            raise ValueError(f"expected {NAME_EXPECTED} in line {number} of '{path}', found {quote(name)}")
    if not names:
        raise ValueError(f"expected a trace of task names, found none in '{path}'")
    return tuple(names.values())


TaskSequence = Annotated[
    tuple[Name, ...],
    Field(max_length=MAX_SWITCHES),
    BeforeValidator(_from_trace, json_schema_input_type=tuple[Name, ...] | str),
]


MIN_DISTILL_SAMPLES = 2  # one for training and one for validation


class _Ranges(Spec):
    """Base class of the estimators of quantization ranges. The setting `headroom` is a factor that widens every range."""

    headroom: float = Field(default=1.0, ge=1.0, le=16.0)
    """A factor, 1 to 16, that widens every activation range at both ends. Above 1, there is room for inputs that calibration
    has not seen, but less resolution. The default is 1."""


class MinMaxRanges(_Ranges):
    """Quantization ranges from the least to the greatest value seen in calibration."""

    estimator: Literal["min-max"]
    """Takes the least and the greatest value of each tensor."""


class PercentileRanges(_Ranges):
    """Quantization ranges that leave out the lowest and highest values seen in calibration, by default 0.005 % at each end."""

    estimator: Literal["percentile"]
    """Takes the range that holds most values of each tensor."""
    percent: float = Field(default=99.99, ge=90.0, le=100.0)
    """The percentage of values in the range, 90 to 100. Half of the other values lie at each end. The default is 99.99."""


class MseRanges(_Ranges):
    """Quantization ranges with the least squared error of rounding and clipping over the values seen in calibration."""

    estimator: Literal["mse"]
    """Takes the range with the least squared error of each tensor."""


ActivationRanges: TypeAlias = Annotated[MinMaxRanges | PercentileRanges | MseRanges, Field(discriminator="estimator")]


class RangesByBits(Spec):
    """The estimators of activation ranges: one for 16-bit activations, and another for 8-bit activations."""

    int16: ActivationRanges = MinMaxRanges(estimator="min-max", headroom=2.0)
    """The estimator for 16-bit activations. The default is min-max with headroom 2."""
    int8: ActivationRanges = PercentileRanges(estimator="percentile", percent=99.99, headroom=1.1)
    """The estimator for 8-bit activations. The default is percentile with percent 99.99 and headroom 1.1."""


class _Profile(Spec):
    """Base class of the settings for a LoRA profile. A LoRA profile holds the quantization encodings that all adapters share."""

    headroom: float = Field(default=1.0, ge=1.0, le=16.0)
    """A factor, 1 to 16, that widens every shared LoRA range. Above 1, there is room for adapters that are added later, but less
    resolution. The default is 1."""
    gauge: bool = True
    """True rescales each adapter's rank-one pairs so that they use the shared ranges fully; their products stay the same.
    The default is true."""


class AnchorProfile(_Profile):
    """A LoRA profile that uses one adapter's quantization ranges for all adapters."""

    scheme: Literal["anchor"]
    """Takes the ranges of one adapter."""
    adapter: Name | None = None
    """The adapter whose ranges are used. The default is null: the most sensitive one, or all if equally sensitive."""


class UnifiedProfile(_Profile):
    """Settings for LoRA encodings that all adapters share. Each quantization range covers the ranges of all adapters."""

    scheme: Literal["unified"]
    """Takes the pooled ranges of all adapters."""


class _Calibration(Spec):
    """Base class of the calibration schemes. It has the number of inputs per task and the estimators of activation ranges."""

    samples: int = Field(default=2, ge=1, le=1000)
    """The number of calibration inputs of each task, 1 to 1000. Each gives a sample at every sampler step. The default is 2."""
    ranges: RangesByBits = RangesByBits()
    """The estimators of activation ranges, by bit width. The default has the default of every field."""


class JointCalibration(_Calibration):
    """Calibration of each U-Net with the inputs of all tasks, even if the U-Net serves one task only (variant `per-graph`)."""

    scheme: Literal["joint"]
    """Takes the inputs of all tasks: for the shared graph with their own adapters and again without any, for each per-graph
    U-Net with its own adapter."""


class OwnTaskCalibration(_Calibration):
    """Calibration of each U-Net with inputs of the tasks that it runs: all tasks if it is shared, one task if it is per-graph."""

    scheme: Literal["own-task"]
    """Takes the inputs of the tasks that a graph serves, with their own adapters: for the shared graph those of all tasks, for
    each per-graph U-Net those of its one task. So the shared graph is calibrated on more inputs."""


class AnchorCalibration(_Calibration):
    """Calibration with the inputs of tasks that use the anchor. The anchor is the adapter whose ranges apply to all adapters."""

    scheme: Literal["anchor"]
    """Takes the inputs of the tasks of the LoRA profile's adapter, which must be named: for the shared graph with this adapter,
    for each per-graph U-Net with its own."""


class Distill(Spec):
    """Training of the adapters on the frozen quantized base, so that quantization costs less quality. The last third of each
    task's calibration inputs is used for validation only.
    """

    adapters: tuple[Name, ...] | None = None
    """The names of the adapters that distillation trains. The default is null: all adapters of the recipe."""
    steps: int = Field(default=300, ge=1, le=100_000)
    """The most training steps, 1 to 100000; training stops earlier if validation no longer improves. The default is 300."""
    batch: int = Field(default=8, ge=1, le=1024)
    """The number of examples in a training step, 1 to 1024. The default is 8."""
    learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    """Adam's learning rate, above 0 and up to 1, as a share of each tensor's greatest weight. The default is 0.0005."""
    diffusion_weight: float = Field(default=0.0, ge=0.0, le=100.0)
    """The weight of the diffusion loss, 0 to 100; the distance from the float U-Net has the weight 1. The default is 0."""
    patience: int = Field(default=4, ge=1, le=1000)
    """The number of evaluations without progress, 1 to 1000, that end training; one is made every 25 steps. The default is 4."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The seed for the order of the examples, 0 or more. The default is 0."""


class Quad(Spec):
    """Settings for the quantization encodings that all adapters share: LoRA profile, calibration and adapter distillation."""

    profile: Annotated[AnchorProfile | UnifiedProfile, Field(discriminator="scheme", examples=["{scheme: unified}"])]
    """The LoRA profile: the ranges that all adapters share, made by the scheme anchor or unified."""
    calibration: Annotated[
        JointCalibration | OwnTaskCalibration | AnchorCalibration, Field(discriminator="scheme", examples=["{scheme: joint}"])
    ]
    """The choice of calibration inputs for shared and per-graph U-Nets, by the scheme joint, own-task or anchor."""
    distill: Distill | None = None
    """The training of adapters for the shared encodings. The default is null: adapters stay unchanged."""

    @field_validator("calibration")
    @classmethod
    def _anchored(cls, calibration: _Calibration, info: ValidationInfo) -> _Calibration:
        profile = info.data.get("profile")
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, UnifiedProfile):
            refuse([Problem(location=("scheme",), reason="'anchor' needs a profile with scheme 'anchor'; found 'unified'")])
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, AnchorProfile) and profile.adapter is None:
            refuse([Problem(location=("scheme",), reason="'anchor' needs the name of the profile's adapter; found none")])
        return calibration

    @field_validator("distill")
    @classmethod
    def _has_inputs_to_judge_by(cls, distill: Distill | None, info: ValidationInfo) -> Distill | None:
        calibration = info.data.get("calibration")
        if distill is not None and calibration is not None and calibration.samples < MIN_DISTILL_SAMPLES:
            reason = (
                f"needs quad.calibration.samples of at least {MIN_DISTILL_SAMPLES}, as training and validation need "
                f"different inputs; found {calibration.samples}"
            )
            refuse([Problem(location=(), reason=reason)])
        return distill
