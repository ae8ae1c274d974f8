"""Quad: how one set of encodings is made for all adapters."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from quadbench.spec import Name, Problem, Spec, refuse


class _Profile(Spec):
    headroom: float = Field(default=1.0, ge=1.0, le=16.0)
    """Factor on every shared LoRA range; above 1 leaves room for adapters yet to come and costs resolution."""
    gauge: bool = True
    """Rescale the rank-one pairs of each adapter into the shared ranges: exact in float, finer in integers."""


class AnchorProfile(_Profile):
    """One adapter's ranges serve them all."""

    scheme: Literal["anchor"]
    adapter: Name | None = None
    """The adapter that sets the ranges; left out, the most sensitive one does, and all together where they are equally so."""


class UnifiedProfile(_Profile):
    """The ranges of all adapters, pooled."""

    scheme: Literal["unified"]


class _Calibration(Spec):
    samples: int = Field(default=2, ge=1, le=1000)
    """Inputs per task that activation ranges are taken from; each gives one sample for every sampler step."""


class JointCalibration(_Calibration):
    """Activation ranges over all tasks and the foundation model without adapter."""

    scheme: Literal["joint"]


class AnchorCalibration(_Calibration):
    """Activation ranges over the tasks of the profile's adapter alone."""

    scheme: Literal["anchor"]


class Distill(Spec):
    """Training of the adapters under the frozen encodings, so that they lose less."""

    adapters: tuple[Name, ...] | None = None
    """Which; left out, all."""
    steps: int = Field(default=300, ge=1, le=100_000)
    """At most so many; it stops where validation no longer improves."""
    batch: int = Field(default=8, ge=1, le=1024)
    """Examples a step."""
    learning_rate: float = Field(default=5e-4, gt=0.0, le=1.0)
    """Adam's, as a share of each tensor's greatest weight."""
    diffusion_weight: float = Field(default=0.0, ge=0.0, le=100.0)
    """Of the diffusion loss, beside the distance from the float U-Net, which counts 1."""
    patience: int = Field(default=4, ge=1, le=1000)
    """Evaluations without progress before it stops; there is one every 25 steps."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the order of the examples."""


class Quad(Spec):
    """How one set of encodings is made for all adapters."""

    profile: Annotated[AnchorProfile | UnifiedProfile, Field(discriminator="scheme")]
    calibration: Annotated[JointCalibration | AnchorCalibration, Field(discriminator="scheme")]
    distill: Distill | None = None
    """Train the adapters for the shared encodings; null leaves them as they are."""

    @field_validator("calibration")
    @classmethod
    def _anchored(cls, calibration: _Calibration, info: ValidationInfo) -> _Calibration:
        profile = info.data.get("profile")
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, UnifiedProfile):
            refuse([Problem(location=("scheme",), reason="'anchor' needs a profile with scheme 'anchor'; found 'unified'")])
        if isinstance(calibration, AnchorCalibration) and isinstance(profile, AnchorProfile) and profile.adapter is None:
            refuse([Problem(location=("scheme",), reason="'anchor' needs the profile's adapter by name; it is left out")])
        return calibration
