"""Scores: how good the images of a run are, as data; `runs/<run id>/quality.json` is the same as JSON."""

from dataclasses import dataclass, field
from enum import StrEnum

from quadbench.artifacts.held_out import HeldOut

SCHEMA_VERSION = 1


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

    schema_version: int = SCHEMA_VERSION
    compared: tuple[Compared, ...]
    emulated: dict[str, HeldOut] = field(default_factory=dict)
