"""Manner: when launches of two sides in turn are looked at, how they bear what befalls devices, and who is told of records."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from quadbench.artifacts import CompiledBundle, RunRecord, Stored
from quadbench.pipeline import USUAL, Conduct
from quadbench.statistics import LOOKS, Looks


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A figure of which shall be told whether it changed by `limit`, the least that matters, on a scale of logarithms."""

    task: str
    key: str
    limit: float


@dataclass(frozen=True, kw_only=True)
class Manner:
    """The manner of a comparison. It ends at the first look at which all goals are reached, without any at a verdict.

    With `to_see`, an effect such as 0.03, the looks follow from the spread of the first blocks. `tasks` are those that are run of
    the ones that both sides have; none means all. `compiled` are graphs that were
    compiled elsewhere, by their bundle's digest and target's key. `keep_files` is told of each record before it is stored, and
    `guard` refuses, within its transaction, one that is no longer the comparison's to store. `is_part`: its runs are
    measured for a farm, and another results folder keeps them.
    """

    looks: Looks = LOOKS
    to_see: float | None = None
    goals: tuple[Goal, ...] = ()
    tasks: tuple[str, ...] = ()
    conduct: Conduct = USUAL
    compiled: Mapping[tuple[str, str], Stored[CompiledBundle]] = field(default_factory=dict)
    keep_files: Callable[[RunRecord], object] = field(default=lambda _: None)
    guard: Callable[[sa.Connection], object] = field(default=lambda _: None)
    is_part: bool = False


USUAL_MANNER = Manner()
