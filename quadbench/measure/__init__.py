"""Measure: an installation and what a launch runs -> RunRecord."""

from quadbench.measure.blocks import missing_blocks
from quadbench.measure.budget import Budget
from quadbench.measure.findings import LaunchSettings
from quadbench.measure.hosted import measure_hosted
from quadbench.measure.launch import LaunchAborted, measure_launch
from quadbench.measure.launches import Queue, Rest, measure_launches
from quadbench.measure.schedule import launches_of_bundle, measured_sequence
from quadbench.measure.stop import Stop
from quadbench.measure.turns import Interleaved, PairedBlock, SideLaunch, Turn, Turns, planned_turns

__all__ = [
    "Budget",
    "Interleaved",
    "LaunchAborted",
    "LaunchSettings",
    "PairedBlock",
    "Queue",
    "Rest",
    "SideLaunch",
    "Stop",
    "Turn",
    "Turns",
    "launches_of_bundle",
    "measure_hosted",
    "measure_launch",
    "measure_launches",
    "measured_sequence",
    "missing_blocks",
    "planned_turns",
]
