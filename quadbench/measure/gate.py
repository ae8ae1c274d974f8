"""Gate: a device's state and limits -> the decision whether a launch may start now, and the doubts about its figures."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from quadbench.artifacts import Caveat
from quadbench.measure.state import DeviceState

_SLOWED = {"cpu", "npu"}  # parts that run the graphs

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """The limits that a device must keep to.

    Thermal status is Android's, where 2 (moderate) is the first that slows the foreground app.

    Source: developer.android.com, PowerManager.THERMAL_STATUS_MODERATE.
    """

    max_thermal_status: int = 1
    min_battery_percent: float = 20.0
    timeout_s: float = 600.0
    poll_s: float = 15.0


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The decision on a launch. `objections` say why it must wait; without any it may start, and `caveats` go with it."""

    objections: tuple[str, ...]
    caveats: tuple[Caveat, ...]

    @property
    def is_open(self) -> bool:
        return not self.objections


def gate(state: DeviceState, limits: GateLimits, *, shares_host_cpu: bool) -> GateDecision:
    """Judge a state. What a device does not tell is not held against it; it stands in the record as unavailable.

    Load on this machine is a caveat and no objection: on a build host something always runs, and waiting would not end.
    """
    objections = []
    status, percent = state.thermal.status, state.battery.level_percent
    if status is not None and status > limits.max_thermal_status:
        objections.append(f"thermal status {status} ({state.thermal.status_name}), at most {limits.max_thermal_status} allowed")
    if percent is not None and percent < limits.min_battery_percent:
        objections.append(f"battery at {percent:.0f} %, at least {limits.min_battery_percent:.0f} % needed")
    return GateDecision(objections=tuple(objections), caveats=_caveats(state, limits, shares_host_cpu=shares_host_cpu))


def wait_at_gate(
    read: Callable[[], DeviceState],
    limits: GateLimits,
    *,
    shares_host_cpu: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[DeviceState, GateDecision]:
    """Read the state until the gate is open or its time is over; the last decision tells which."""
    deadline = clock() + limits.timeout_s
    while True:
        state = read()
        decision = gate(state, limits, shares_host_cpu=shares_host_cpu)
        if decision.is_open or clock() + limits.poll_s > deadline:
            return state, decision
        log.info("waiting %g s before a launch: %s", limits.poll_s, "; ".join(decision.objections))
        sleep(limits.poll_s)


def _caveats(state: DeviceState, limits: GateLimits, *, shares_host_cpu: bool) -> tuple[Caveat, ...]:
    is_hot = state.thermal.status is not None and state.thermal.status > limits.max_thermal_status
    is_slowed = any(device.level > 0 and device.kind in _SLOWED for device in state.thermal.cooling)
    is_capped = is_slowed or any(clock.is_capped for clock in state.clocks)
    is_loaded = state.load_1min is not None and state.cores is not None and state.load_1min > state.cores
    throttled = (Caveat.THROTTLED,) if is_hot or is_capped else ()
    return (*throttled, Caveat.LOADED_HOST) if shares_host_cpu and is_loaded else throttled
