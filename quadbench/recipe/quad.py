"""QUAD in a recipe: how one set of encodings is made for all adapters, and how ranges of activations are found."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator

from quadbench.spec import Name, Problem, Spec, refuse

LEAST_DISTILL_SAMPLES = 2  # one to train on and one to judge by


class _Ranges(Spec):
    """The setting that all ways to estimate ranges share."""

    headroom: float = Field(default=1.0, ge=1.0, le=16.0)
    """Both ends of every activation range are multiplied by this factor, 1 to 16; above 1 there is room for inputs that
    calibration has not seen and less resolution. The default is 1."""


class MinMaxRanges(_Ranges):
    """Ranges from the least to the greatest value seen."""

    estimator: Literal["min-max"]
    """Takes the least and the greatest value of each tensor."""


class PercentileRanges(_Ranges):
    """Ranges that leave out a small share of the values seen."""

    estimator: Literal["percentile"]
    """Takes the range that holds most values of each tensor."""
    percent: float = Field(default=99.99, ge=90.0, le=100.0)
    """This share of the values lies within the range, 90 to 100 percent; half of the others lies at either end.
    The default is 99.99."""


class MseRanges(_Ranges):
    """Ranges under which the values seen are rounded and clipped with the least squared error."""

    estimator: Literal["mse"]
    """Takes the range with the least squared error of each tensor."""


ActivationRanges: TypeAlias = Annotated[MinMaxRanges | PercentileRanges | MseRanges, Field(discriminator="estimator")]


class RangesByBits(Spec):
    """The ways in which activation ranges are taken, since what serves 65536 steps does not serve 256."""

    int16: ActivationRanges = MinMaxRanges(estimator="min-max", headroom=2.0)
    """Activations of 16 bits have ranges by this estimator. The default is min-max with headroom 2."""
    int8: ActivationRanges = PercentileRanges(estimator="percentile", percent=99.99, headroom=1.1)
    """Activations of 8 bits have ranges by this estimator. The default is percentile with percent 99.99 and headroom 1.1."""


class _Profile(Spec):
    """The settings that both ways to make a LoRA profile share."""

    headroom: float = Field(default=1.0, ge=1.0, le=16.0)
    """Every shared LoRA range is multiplied by this factor, 1 to 16; above 1 there is room for adapters yet to come and less
    resolution. The default is 1."""
    gauge: bool = True
    """The rank-one pairs of each adapter are rescaled into the shared ranges, which is exact in float and finer in integers.
    The default is true."""


class AnchorProfile(_Profile):
    """A LoRA profile in which one adapter's ranges serve all adapters."""

    scheme: Literal["anchor"]
    """Takes the ranges of one adapter."""
    adapter: Name | None = None
    """This adapter sets the ranges. The default is null: the most sensitive one does, and all together where they are
    equally so."""


class UnifiedProfile(_Profile):
    """A LoRA profile that pools the ranges of all adapters."""

    scheme: Literal["unified"]
    """Takes the pooled ranges of all adapters."""


class _Calibration(Spec):
    """The settings that all ways to calibrate share."""

    samples: int = Field(default=2, ge=1, le=1000)
    """Activation ranges are taken from this many inputs of each task, 1 to 1000; each gives a sample for every sampler step.
    The default is 2."""
    ranges: RangesByBits = RangesByBits()
    """Activation ranges follow from what calibration saw in these ways. The default is every default of its fields."""


class JointCalibration(_Calibration):
    """Calibration of either variant over the inputs of all tasks."""

    scheme: Literal["joint"]
    """Takes the inputs of all tasks: for the shared graph under their own adapters and again under none, for each per-graph
    U-Net under its own adapter."""


class OwnTaskCalibration(_Calibration):
    """Calibration over the inputs of the tasks that a graph serves."""

    scheme: Literal["own-task"]
    """Takes the inputs of the tasks that a graph serves, under their own adapters: for the shared graph those of all tasks, for
    each per-graph U-Net those of its one task. So the shared graph sees more of them."""


class AnchorCalibration(_Calibration):
    """Calibration of either variant over the tasks of the LoRA profile's adapter alone."""

    scheme: Literal["anchor"]
    """Takes the inputs of the tasks of the LoRA profile's adapter, which must be named: for the shared graph under this adapter,
    for each per-graph U-Net under its own."""


class Distill(Spec):
    """The training of adapters under the frozen encodings, so that they lose less. Of each task's calibration inputs the last
    third judges and is not trained on."""

    adapters: tuple[Name, ...] | None = None
    """These adapters are trained. The default is null: all of them."""
    steps: int = Field(default=300, ge=1, le=100_000)
    """Training takes at most this many steps, 1 to 100000, and stops where validation no longer improves. The default is 300."""
    batch: int = Field(default=8, ge=1, le=1024)
    """Each step takes this many examples, 1 to 1024. The default is 8."""
    learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    """Adam's learning rate, above 0 and up to 1, is a share of each tensor's greatest weight. The default is 0.0005."""
    diffusion_weight: float = Field(default=0.0, ge=0.0, le=100.0)
    """The diffusion loss has this weight, 0 to 100, beside the distance from the float U-Net, which has 1. The default is 0."""
    patience: int = Field(default=4, ge=1, le=1000)
    """Training stops after this many evaluations without progress, 1 to 1000; there is one every 25 steps. The default is 4."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The order of the examples is drawn with this seed, 0 or more. The default is 0."""


class Quad(Spec):
    """The way in which one set of encodings is made for all adapters."""

    profile: Annotated[AnchorProfile | UnifiedProfile, Field(discriminator="scheme", examples=["{scheme: unified}"])]
    """The LoRA profile, the ranges that all adapters share, is made by the scheme anchor or unified."""
    calibration: Annotated[
        JointCalibration | OwnTaskCalibration | AnchorCalibration, Field(discriminator="scheme", examples=["{scheme: joint}"])
    ]
    """The activations' ranges are taken, in both variants, by the scheme joint, own-task or anchor."""
    distill: Distill | None = None
    """The adapters are trained for the shared encodings in this way. The default is null: they stay as they are."""

    @field_validator("calibration")
    @classmethod
    def _anchored(cls, calibration: _Calibration, info: ValidationInfo) -> _Calibration:
        profile = info.data.get("profile")
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, UnifiedProfile):
            refuse([Problem(location=("scheme",), reason="'anchor' needs a profile with scheme 'anchor'; found 'unified'")])
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, AnchorProfile) and profile.adapter is None:
            refuse([Problem(location=("scheme",), reason="'anchor' needs the profile's adapter by name; it is left out")])
        return calibration

    @field_validator("distill")
    @classmethod
    def _has_inputs_to_judge_by(cls, distill: Distill | None, info: ValidationInfo) -> Distill | None:
        calibration = info.data.get("calibration")
        if distill is not None and calibration is not None and calibration.samples < LEAST_DISTILL_SAMPLES:
            reason = (
                f"needs quad.calibration.samples of at least {LEAST_DISTILL_SAMPLES}, to judge by other inputs than it trains on"
                f"; found {calibration.samples}"
            )
            refuse([Problem(location=(), reason=reason)])
        return distill
