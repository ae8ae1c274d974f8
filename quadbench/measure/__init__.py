"""Measure: an installation and what a launch runs -> RunRecord."""

from quadbench.measure.gate import GateLimits
from quadbench.measure.hosted import measure_hosted
from quadbench.measure.launch import LaunchAborted, LaunchSettings, measure_launch
from quadbench.measure.launches import measure_launches
from quadbench.measure.schedule import launches_of

__all__ = [
    "GateLimits",
    "LaunchAborted",
    "LaunchSettings",
    "launches_of",
    "measure_hosted",
    "measure_launch",
    "measure_launches",
]
