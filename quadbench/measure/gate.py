"""Read a device's temperature, battery, load and clocks, and decide whether a launch may start now."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from quadbench.artifacts import MIB, Caveat
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.android_reports import BatteryState, ThermalState, parse_battery, parse_screen, parse_thermal
from quadbench.devices.device import Device
from quadbench.recipe.settings import Gate

UNAVAILABLE = "unavailable"
_TIMEOUT_S = 30.0
_KHZ = r"(\d{1,12}|-)"  # `-` where the phone denies reading the file
_DECIMAL = r"\d{1,12}(?:\.\d{1,12})?"
_MARK = "@@quadbench "
_TICKS = r"^cpu +" + r"(\d{1,18}) " * 7 + r"(\d{1,18})"
_BUSY_S = 0.3  # time over which the load is measured: 30 kernel ticks on each core

# Reads everything in one round trip. Parts that a device lacks print nothing.
_SCRIPT = f"""exec 2>/dev/null
if [ "$1" = busy ]; then echo '{_MARK}busy'; head -n 1 /proc/stat; sleep {_BUSY_S}; head -n 1 /proc/stat; fi
echo '{_MARK}thermal'; dumpsys thermalservice
echo '{_MARK}battery'; dumpsys battery
echo '{_MARK}screen'; dumpsys power | grep mWakefulness=
echo '{_MARK}load'; cat /proc/loadavg
echo '{_MARK}memory'; cat /proc/meminfo
echo '{_MARK}uptime'; cat /proc/uptime
echo '{_MARK}cores'; nproc
echo '{_MARK}clocks'
cd /sys/devices/system/cpu/cpufreq || exit 0
for policy in policy*; do
  echo "$policy $(cat $policy/scaling_cur_freq || echo -) $(cat $policy/scaling_max_freq || echo -)" \
    "$(cat $policy/cpuinfo_max_freq || echo -)"
done
exit 0
"""

_THROTTLED = {"cpu", "npu"}  # cooling devices of the parts that run the graphs
_PHONE_BUSY_PERCENT = 50.0  # default for phones
_POLL_S = 15.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A cluster of CPU cores with one clock. Frequency, present limit and hardware limit are in kHz, or None if unreported."""

    policy: str
    khz: int | None
    cap_khz: int | None
    hardware_khz: int | None

    @property
    def is_capped(self) -> bool:
        """Return True if the CPU's frequency limit is known to be below its hardware maximum."""
        return self.cap_khz is not None and self.hardware_khz is not None and self.cap_khz < self.hardware_khz

    def __str__(self) -> str:
        frequencies = ("?" if khz is None else str(khz) for khz in (self.khz, self.cap_khz, self.hardware_khz))
        return f"{self.policy} {'/'.join(frequencies)} kHz"


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """A device's state at one moment: temperatures, battery, load, memory and clocks. A number or text is None if unreported."""

    thermal: ThermalState
    battery: BatteryState
    screen: str | None
    load_1min: float | None
    cores: int | None
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    uptime_s: float | None
    clocks: tuple[Clock, ...]
    busy_percent: float | None = None  # CPU load by other work; also None if it was not measured


def read_state(device: Device, *, is_watched: bool = False) -> DeviceState:
    """Read a device's DeviceState. With `is_watched`, measure `busy_percent` (CPU load) for 0.3 s, else leave it None."""
    return parse_state(state_report(device, is_watched=is_watched))


def state_report(device: Device, *, is_watched: bool = False) -> str:
    """Return a device's reports of temperature, battery, screen, load, memory and clocks as one text, as it wrote them."""
    return device.shell(["sh", "-c", _SCRIPT, "state", "busy" if is_watched else "idle"], _TIMEOUT_S).stdout


def state_parts(text: str) -> dict[str, str]:
    """Return the reports in a text of `state_report` as a dict from the part's name, such as `battery`, to what was printed."""
    return dict(part.partition("\n")[::2] for part in text.split(_MARK)[1:])


def parse_state(text: str) -> DeviceState:
    """Parse the output of `read_state`'s shell script into a device state."""
    parts = state_parts(text)
    return DeviceState(
        thermal=parse_thermal(parts.get("thermal", "")),
        battery=parse_battery(parts.get("battery", "")),
        screen=parse_screen(parts.get("screen", "")),
        load_1min=_number(rf"^({_DECIMAL})\s", parts.get("load", "")),
        cores=_whole(r"^(\d{1,6})$", parts.get("cores", "")),
        memory_total_bytes=_kib(parts, "MemTotal"),
        memory_available_bytes=_kib(parts, "MemAvailable"),
        uptime_s=_number(rf"^({_DECIMAL})\s", parts.get("uptime", "")),
        busy_percent=_busy_percent(parts.get("busy", "")),
        clocks=tuple(
            Clock(policy=policy, khz=_khz(khz), cap_khz=_khz(cap), hardware_khz=_khz(hardware))
            for policy, khz, cap, hardware in re.findall(rf"^(\S+) {_KHZ} {_KHZ} {_KHZ}$", parts.get("clocks", ""), re.MULTILINE)
        ),
    )


def state_texts(state: DeviceState | None, moment: str) -> dict[str, str]:
    """Return a device's state as a dict from field name to text. Prefix names with `moment`, as in `before.battery_percent`."""
    if state is None:
        return {f"{moment}.state": UNAVAILABLE}
    values = {
        "thermal_status": state.thermal.status,
        "battery_percent": state.battery.level_percent,
        "battery_temperature_c": state.battery.temperature_c,
        "battery_powered_by": "+".join(state.battery.powered_by) or None,
        "screen": state.screen,
        "load_1min": state.load_1min,
        "cores": state.cores,
        "memory_total_bytes": state.memory_total_bytes,
        "memory_available_bytes": state.memory_available_bytes,
        "uptime_s": state.uptime_s,
        "busy_percent": None if state.busy_percent is None else f"{state.busy_percent:.1f}",
        "clocks": ", ".join(map(str, state.clocks)) or None,
        "cooling": ", ".join(f"{device.name} {device.level}" for device in state.thermal.cooling) or None,
        "temperatures_c": ", ".join(f"{t.name} {t.celsius:.1f}" for t in state.thermal.temperatures) or None,
    }
    return {f"{moment}.{key}": UNAVAILABLE if value is None else one_line(str(value)) for key, value in values.items()}


def _busy_percent(text: str) -> float | None:
    """Return the CPU's busy time between two lines of /proc/stat, in percent. Waiting for I/O does not count as busy."""
    lines = [list(map(int, line)) for line in re.findall(_TICKS, text, re.MULTILINE)]
    if len(lines) != 2:
        return None
    spent = [max(0, after - before) for before, after in zip(*lines, strict=True)]
    return 100 * (1 - (spent[3] + spent[4]) / sum(spent)) if sum(spent) else None


def _khz(text: str) -> int | None:
    return None if text == "-" else int(text)


def _kib(parts: Mapping[str, str], key: str) -> int | None:
    kib = _whole(rf"^{key}:\s+(\d{{1,15}}) kB", parts.get("memory", ""))
    return None if kib is None else kib * 1024


def _whole(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text, re.MULTILINE)
    return int(match[1]) if match else None


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text, re.MULTILINE)
    return float(match[1]) if match else None


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The decision whether a launch may start: yes if `objections` is empty. `caveats` are doubts about the launch's results."""

    objections: tuple[str, ...]
    caveats: tuple[Caveat, ...]

    @property
    def is_open(self) -> bool:
        return not self.objections


def max_busy_percent(limits: Gate, *, shares_host_cpu: bool) -> float | None:
    """Return the highest CPU load by other work, in percent, at which a launch may start. None means that any load is allowed."""
    if limits.max_busy_percent is None and not shares_host_cpu:
        return _PHONE_BUSY_PERCENT
    return limits.max_busy_percent


def gate(state: DeviceState, limits: Gate, *, shares_host_cpu: bool) -> GateDecision:
    """Decide from a device's state whether a launch may start. Values that the device does not report are ignored."""
    most_busy = max_busy_percent(limits, shares_host_cpu=shares_host_cpu)
    percent, free, objections = state.battery.level_percent, state.memory_available_bytes, [*disturbances(state, limits)]
    if percent is not None and percent < limits.min_battery_percent:
        objections.append(f"battery at {percent:.0f} %, at least {limits.min_battery_percent:.0f} % needed")
    if most_busy is not None and state.busy_percent is not None and state.busy_percent > most_busy:
        objections.append(f"CPU {state.busy_percent:.0f} % busy with other work, at most {most_busy:g} % allowed")
    if free is not None and free < limits.min_free_mb * MIB:
        objections.append(f"{free / MIB:.0f} MB of memory available, at least {limits.min_free_mb} MB needed")
    return GateDecision(objections=tuple(objections), caveats=caveats_of_state(state, limits, shares_host_cpu=shares_host_cpu))


def wait_at_gate(
    read: Callable[[], DeviceState],
    limits: Gate,
    *,
    shares_host_cpu: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[DeviceState, GateDecision]:
    """Poll a device's state until a launch may start, for at most `limits.wait_s` seconds. Return the last state and decision."""
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
    """Yield a text for each reason why a device may run slowly: high thermal status, hot skin, or a throttled CPU or NPU."""
    status = state.thermal.status
    if status is not None and status > limits.max_thermal_status:
        yield f"thermal status {status} ({state.thermal.status_name}), at most {limits.max_thermal_status} allowed"
    skin_c = max((t.celsius for t in state.thermal.temperatures if t.kind == "skin"), default=None)
    if skin_c is not None and limits.max_skin_c is not None and skin_c > limits.max_skin_c:
        yield f"skin at {skin_c:.1f} °C, at most {limits.max_skin_c:g} °C allowed"
    if not limits.allows_throttled and (slowed := _throttling(state)):
        yield f"slowed down: {', '.join(slowed)}; to accept this, set measure.gate.allows_throttled"


def caveats_of_state(state: DeviceState, limits: Gate, *, shares_host_cpu: bool) -> tuple[Caveat, ...]:
    """Return the caveats that a device state at a launch's start or end causes: THROTTLED, LOADED_HOST, both or none."""
    is_loaded = state.load_1min is not None and state.cores is not None and state.load_1min > state.cores
    is_slow = bool(_throttling(state)) or any(disturbances(state, limits))
    throttled = (Caveat.THROTTLED,) if is_slow else ()
    return (*throttled, Caveat.LOADED_HOST) if shares_host_cpu and is_loaded else throttled


def _throttling(state: DeviceState) -> list[str]:
    parts = [f"{part.name} at level {part.level}" for part in state.thermal.cooling if part.level > 0 and part.kind in _THROTTLED]
    return [*parts, *(f"{clock}, capped" for clock in state.clocks if clock.is_capped)]
