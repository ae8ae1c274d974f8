"""Parsers for the text output of Android's getprop, `adb devices -l` and dumpsys. They only take text and run no commands."""

import math
import re
from dataclasses import dataclass, field

ABI_PROPERTY = "ro.product.cpu.abi"
BOOTED_PROPERTY = "sys.boot_completed"
_ENTRY = re.compile(r"\[(?P<key>[^\]]+)\]: \[(?P<value>.*)")
_STATES = (
    "device|offline|unauthorized|authorizing|connecting|bootloader|recovery|rescue|sideload|host|detached|unknown"
    r"|no permissions(?:[ ;].*?)?"
)
_ATTACHED = re.compile(rf"(?P<serial>\S.*?)\s+(?P<state>{_STATES})(?P<words>(?:\s+[\w-]+:\S+)*)\s*")

# android.os.Temperature, without its BCL types (battery voltage, current, charge) and -1 (unknown): no temperatures
_KINDS = {
    0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 4: "usb-port", 5: "power-amplifier", 9: "npu", 10: "tpu", 11: "display",
    12: "modem", 13: "soc", 14: "wifi", 15: "camera", 16: "flashlight", 17: "speaker", 18: "ambient", 19: "pogo",
}  # fmt: skip
# android.os.CoolingDevice
_COOLED = {
    0: "fan", 1: "battery", 2: "cpu", 3: "gpu", 4: "modem", 5: "npu", 6: "component", 7: "tpu", 8: "power-amplifier",
    9: "display", 10: "speaker", 11: "wifi", 12: "camera", 13: "flashlight", 14: "usb-port",
}  # fmt: skip
_STATUS_NAMES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # android.os.PowerManager
# The range in which a phone works. Sensors that are off report 0, -99.9 or -3.4e38; some report thousandths of a degree.
_LOWEST_C, _HIGHEST_C = -40.0, 150.0

# Set by `cmd thermalservice override-status`, or because the service has no data yet.
_NOT_MEASURED = re.compile(r"^(?:IsStatusOverride: true|HAL Ready: false)", re.MULTILINE)
_STATUS = re.compile(r"^Thermal Status: (\d{1,9})\b", re.MULTILINE)
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(?P<value>[^,]+), mType=(?P<kind>-?\d{1,9}), mName=(?P<name>.*?), mStatus=(?P<status>-?\d{1,9})\}"
)
_COOLING_DEVICE = re.compile(r"CoolingDevice\{mValue=(?P<value>\d{1,18}), mType=(?P<kind>\d{1,9}), mName=(?P<name>.*?)\}")
_UPDATES_STOPPED = "UPDATES STOPPED"  # after `dumpsys battery set`: the values are set by hand, not measured
_BATTERY_LINE = re.compile(r"^\s+([A-Za-z ]+): ?(\S+)\s*$", re.MULTILINE)
_WAKEFULNESS = re.compile(r"^\s*mWakefulness=(\w+)\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class AttachedDevice:
    """A line of `adb devices -l`: the adb serial, the state, and key-value pairs such as model, product and usb."""

    serial: str
    state: str  # `device` means ready
    words: dict[str, str] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.state == "device"


def parse_getprop(text: str) -> dict[str, str]:
    """Parse getprop's output into a dict from key to value. A value may have several lines. Lines outside entries are skipped."""
    properties: dict[str, str] = {}
    open_key: str | None = None
    for line in text.split("\n"):
        if entry := _ENTRY.match(line):
            open_key, rest = entry["key"], entry["value"]
            properties[open_key] = rest
        elif open_key is not None:
            rest = line
            properties[open_key] += f"\n{line}"
        else:
            continue
        if rest.endswith("]"):
            properties[open_key] = properties[open_key][:-1].rstrip("\r\n")
            open_key = None
    return properties


def format_getprop(properties: dict[str, str]) -> str:
    """Return a dict of Android properties as the text that `getprop` prints, sorted by key. `parse_getprop` does the reverse."""
    return "".join(f"[{key}]: [{value}]\n" for key, value in sorted(properties.items()))


def parse_device_list(text: str) -> list[AttachedDevice]:
    """Parse the output of `adb devices -l` into a list of AttachedDevice. Serials and states may contain spaces."""
    attached = []
    for line in text.splitlines():
        if match := _ATTACHED.fullmatch(line):
            words = dict(word.split(":", 1) for word in match["words"].split())
            attached.append(AttachedDevice(serial=match["serial"], state=match["state"], words=words))
    return attached


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A temperature sensor's reading. `kind` is Android's sensor type, such as `skin`. `status` is a throttling level, 0 to 6."""

    name: str
    kind: str
    celsius: float
    status: int


@dataclass(frozen=True, kw_only=True)
class CoolingDevice:
    """A cooling device of Android's thermal HAL, such as the CPU or the fan. `level` 0 means no throttling."""

    name: str
    kind: str
    level: int


@dataclass(frozen=True, kw_only=True)
class ThermalState:
    """A device's temperatures and throttling. `status` is Android's thermal status, or None if the device does not report it."""

    status: int | None
    temperatures: tuple[Temperature, ...]
    cooling: tuple[CoolingDevice, ...] = ()

    @property
    def status_name(self) -> str:
        """Return Android's name for `status`, from `none` (0) to `shutdown` (6). Return `unavailable` if `status` is None."""
        if self.status is None:
            return "unavailable"
        return _STATUS_NAMES[self.status] if self.status < len(_STATUS_NAMES) else str(self.status)


@dataclass(frozen=True, kw_only=True)
class BatteryState:
    """A battery's charge in percent, temperature in °C and power sources. Charge or temperature is None if not reported."""

    level_percent: float | None
    temperature_c: float | None
    powered_by: tuple[str, ...]


def parse_thermal(text: str) -> ThermalState:
    """Parse the output of `dumpsys thermalservice` into a ThermalState: the thermal status, temperatures and cooling devices.

    Cached values, sensors that are off, implausible temperatures and a status that was not measured are left out.
    """
    status = None if _NOT_MEASURED.search(text) else _STATUS.search(text)
    temperatures = []
    for match in _TEMPERATURE.finditer(_section(text, "Current temperatures from HAL")):
        value, kind = _finite(match["value"]), _kind(match, _KINDS)
        celsius = None if value is None else _plausible(value)
        if celsius is not None and kind is not None:
            temperatures.append(Temperature(name=match["name"], kind=kind, celsius=celsius, status=int(match["status"])))
    cooling = [
        CoolingDevice(name=match["name"], kind=_kind(match, _COOLED) or "unknown", level=int(match["value"]))
        for match in _COOLING_DEVICE.finditer(_section(text, "Current cooling devices from HAL"))
    ]
    return ThermalState(status=int(status[1]) if status else None, temperatures=tuple(temperatures), cooling=tuple(cooling))


def parse_battery(text: str) -> BatteryState:
    """Parse the output of `dumpsys battery` into a BatteryState. If a vendor's output repeats a key, use the first value."""
    section = _section(text, "Current Battery Service state")
    values: dict[str, str] = {}
    for key, value in _BATTERY_LINE.findall(section) if _UPDATES_STOPPED not in section else ():
        values.setdefault(key, value)
    powered_by = tuple(
        key.removesuffix(" powered") for key, value in values.items() if key.endswith(" powered") and value == "true"
    )
    if values.get("present") != "true":
        return BatteryState(level_percent=None, temperature_c=None, powered_by=powered_by)
    level, scale, tenths = _number(values, "level"), _number(values, "scale"), _number(values, "temperature")
    return BatteryState(
        level_percent=100 * level / scale if level is not None and scale and 0 <= level <= scale else None,
        temperature_c=_plausible(tenths / 10) if tenths is not None else None,
        powered_by=powered_by,
    )


def parse_screen(text: str) -> str | None:
    """Parse the output of `dumpsys power`. Return the text `on` or `off` for the screen, or None for any other output."""
    wakefulness = _WAKEFULNESS.search(text)
    if wakefulness is None:
        return None
    return {"Awake": "on", "Asleep": "off", "Dozing": "off"}.get(wakefulness[1])


def _section(text: str, title: str) -> str:
    """Return the indented lines below `<title>:` in dumpsys output as one text, empty if no line has that title."""
    lines = re.search(rf"^{re.escape(title)}:[^\n]*\n((?:[ \t]+[^\n]*(?:\n|\Z))*)", text, re.MULTILINE)
    return lines[1] if lines else ""


def _kind(match: re.Match[str], kinds: dict[int, str]) -> str | None:
    """Return a sensor's type as a word, or None if unknown. Phones report a number, older Samsung phones a `TYPE_` name."""
    if match["name"].startswith("TYPE_"):
        word = match["name"].removeprefix("TYPE_").lower().replace("_", "-")
        return word if word in kinds.values() else None
    return kinds.get(int(match["kind"]))


def _plausible(celsius: float) -> float | None:
    return celsius if celsius != 0.0 and _LOWEST_C <= celsius <= _HIGHEST_C else None


def _number(values: dict[str, str], key: str) -> float | None:
    return _finite(values[key]) if key in values else None


def _finite(text: str) -> float | None:
    """Parse a finite number; return None for any other text."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
