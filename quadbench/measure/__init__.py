"""Measure: an installation and what a launch runs -> RunRecord."""

from quadbench.measure.blocks import missing_blocks
from quadbench.measure.hosted import measure_hosted
from quadbench.measure.launch import LaunchAborted, LaunchSettings, measure_launch
from quadbench.measure.launches import Queue, measure_launches
from quadbench.measure.schedule import launches_of, measured_sequence
from quadbench.measure.turns import Interleaved, PairedBlock, SideLaunch, Turn, Turns, planned_turns

__all__ = [
    "Interleaved",
    "LaunchAborted",
    "LaunchSettings",
    "PairedBlock",
    "Queue",
    "SideLaunch",
    "Turn",
    "Turns",
    "launches_of",
    "measure_hosted",
    "measure_launch",
    "measure_launches",
    "measured_sequence",
    "missing_blocks",
    "planned_turns",
]
