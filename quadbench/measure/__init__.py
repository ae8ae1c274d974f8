"""Measure: an installation and what a launch runs -> RunRecord."""

from quadbench.measure.hosted import measure_hosted
from quadbench.measure.launch import Stop, measure_launch
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import (
    Budget,
    Interleaved,
    PairedBlock,
    SideLaunch,
    Turns,
    launches_of_bundle,
    measured_sequence,
    missing_blocks,
    planned_turns,
)
from quadbench.measure.parallel_launches import Queue, Rest, measure_launches

__all__ = [
    "Budget",
    "Interleaved",
    "LaunchSettings",
    "PairedBlock",
    "Queue",
    "Rest",
    "SideLaunch",
    "Stop",
    "Turns",
    "launches_of_bundle",
    "measure_hosted",
    "measure_launch",
    "measure_launches",
    "measured_sequence",
    "missing_blocks",
    "planned_turns",
]
