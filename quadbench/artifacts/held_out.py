"""Held out: what a build saw of its quantized U-Nets on evaluation inputs, which calibrate nothing, as data in the bundle."""

from dataclasses import dataclass

from quadbench.artifacts.names import FileName, Line


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
