"""Work: what a run measures, of which bundles and on what terms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from quadbench.artifacts import Bundle, DeviceFacts, RunRecord, Stored
from quadbench.observer import Observer
from quadbench.recipe import Terms
from quadbench.rollout.equipment import NO_GEAR, Gear


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a run: what it measures. `bundles_of` returns by device profile the bundle that devices run, built if need be.

    `run_id` is that of a run that goes on, of which nothing need be there yet, and `devices` are those that it had; None begins
    a new one. `keep_files` is told of each record before it is stored, and may keep the files of its launch elsewhere.
    `guard` refuses, within its transaction, a record that is no longer the run's to store. `is_part`: it is measured for a
    farm, and another results folder keeps the run.
    """

    name: str
    terms: Terms
    bundles_of: Callable[[Sequence[str], Observer], Mapping[str, Stored[Bundle]]]
    run_id: str | None = None
    devices: tuple[DeviceFacts, ...] = ()
    gear: Gear = NO_GEAR
    keep_files: Callable[[RunRecord], object] = field(default=lambda _: None)
    guard: Callable[[sa.Connection], object] = field(default=lambda _: None)
    is_part: bool = False
