"""Measure: Bundle, CompiledBundle, Deployment, Device and LaunchPlan -> RunRecord."""

from quadbench.measure.gate import GateLimits
from quadbench.measure.hosted import measure_hosted
from quadbench.measure.launch import LaunchAborted, measure_launch

__all__ = ["GateLimits", "LaunchAborted", "measure_hosted", "measure_launch"]
