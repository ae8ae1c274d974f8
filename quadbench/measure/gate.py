"""Gate: a device's state and limits -> the decision whether a launch may start now or must be repeated, and its caveats."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from quadbench.artifacts import MIB, Caveat
from quadbench.measure.state import DeviceState
from quadbench.recipe import Gate

_SLOWED = {"cpu", "npu"}  # parts that run the graphs
_PHONE_BUSY_PERCENT = 50.0  # where the recipe says nothing
_POLL_S = 15.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The decision on a launch. `objections` say why it must wait; without any it may start, and `caveats` go with it."""

    objections: tuple[str, ...]
    caveats: tuple[Caveat, ...]

    @property
    def is_open(self) -> bool:
        return not self.objections


def max_busy_percent(limits: Gate, *, shares_host_cpu: bool) -> float | None:
    """Return how busy with other work a device may be; None is as busy as it likes, and nobody needs to measure it."""
    if limits.max_busy_percent is None and not shares_host_cpu:
        return _PHONE_BUSY_PERCENT
    return limits.max_busy_percent


def gate(state: DeviceState, limits: Gate, *, shares_host_cpu: bool) -> GateDecision:
    """Judge a state before a launch. What a device does not tell is not held against it; it is recorded as unavailable."""
    most_busy = max_busy_percent(limits, shares_host_cpu=shares_host_cpu)
    objections = (*disturbances(state, limits), *_shortages(state, limits, most_busy))
    return GateDecision(objections=objections, caveats=caveats_of_state(state, limits, shares_host_cpu=shares_host_cpu))


def wait_at_gate(
    read: Callable[[], DeviceState],
    limits: Gate,
    *,
    shares_host_cpu: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[DeviceState, GateDecision]:
    """Read the state until the gate is open or its time is over; the last decision tells which."""
    deadline = clock() + limits.wait_s
    while True:
        state = read()
        decision = gate(state, limits, shares_host_cpu=shares_host_cpu)
        remaining_s = deadline - clock()
        if decision.is_open or remaining_s <= 0:
            return state, decision
        log.info("waiting up to %.0f s before a launch: %s", remaining_s, "; ".join(decision.objections))
        sleep(min(_POLL_S, remaining_s))


def disturbances(state: DeviceState, limits: Gate) -> Iterator[str]:
    """Yield why a launch that ended in this state, or would start in it, does not run as fast as the device can."""
    status = state.thermal.status
    if status is not None and status > limits.max_thermal_status:
        yield f"thermal status {status} ({state.thermal.status_name}), at most {limits.max_thermal_status} allowed"
    skin_c = max((t.celsius for t in state.thermal.temperatures if t.kind == "skin"), default=None)
    if skin_c is not None and limits.max_skin_c is not None and skin_c > limits.max_skin_c:
        yield f"skin at {skin_c:.1f} °C, at most {limits.max_skin_c:g} °C allowed"
    if not limits.allows_throttled and (slowed := _slowed(state)):
        yield f"slowed down: {', '.join(slowed)}; measure.gate.allows_throttled takes it for normal"


def caveats_of_state(state: DeviceState, limits: Gate, *, shares_host_cpu: bool) -> tuple[Caveat, ...]:
    """Return the doubts about a launch that started or ended in this state."""
    is_loaded = state.load_1min is not None and state.cores is not None and state.load_1min > state.cores
    is_slow = bool(_slowed(state)) or any(disturbances(state, limits))
    throttled = (Caveat.THROTTLED,) if is_slow else ()
    return (*throttled, Caveat.LOADED_HOST) if shares_host_cpu and is_loaded else throttled


def _shortages(state: DeviceState, limits: Gate, most_busy: float | None) -> Iterator[str]:
    percent, free = state.battery.level_percent, state.memory_available_bytes
    if percent is not None and percent < limits.min_battery_percent:
        yield f"battery at {percent:.0f} %, at least {limits.min_battery_percent:.0f} % needed"
    if most_busy is not None and state.busy_percent is not None and state.busy_percent > most_busy:
        yield f"CPU {state.busy_percent:.0f} % busy with other work, at most {most_busy:g} % allowed"
    if free is not None and free < limits.min_free_mb * MIB:
        yield f"{free / MIB:.0f} MB of memory available, at least {limits.min_free_mb} MB needed"


def _slowed(state: DeviceState) -> list[str]:
    parts = [f"{part.name} by {part.level}" for part in state.thermal.cooling if part.level > 0 and part.kind in _SLOWED]
    return [*parts, *(f"{clock}, capped" for clock in state.clocks if clock.is_capped)]
