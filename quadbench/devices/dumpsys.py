"""Dumpsys: the text of Android's `dumpsys thermalservice` and `dumpsys battery` -> the device's state. Pure."""

import math
import re
from dataclasses import dataclass

# android.os.Temperature; the BCL ones are the battery's voltage, current and charge, not temperatures
_KINDS = {
    0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 4: "usb-port", 5: "power-amplifier", 9: "npu", 10: "tpu", 11: "display",
    12: "modem", 13: "soc", 14: "wifi", 15: "camera", 16: "flashlight", 17: "speaker", 18: "ambient", 19: "pogo",
}  # fmt: skip
_BATTERY_CURRENT_LIMIT_KINDS = {6, 7, 8}
_STATUS_NAMES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # android.os.PowerManager
_LOWEST_PLAUSIBLE_C = -100.0  # sensors that are off report -3.4e38

_STATUS = re.compile(r"^Thermal Status: (\d{1,9})\b", re.MULTILINE)
_HAL_SECTION = re.compile(r"^Current temperatures from HAL:[^\n]*\n((?:[ \t]+[^\n]*(?:\n|\Z))*)", re.MULTILINE)
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(?P<value>[^,]+), mType=(?P<kind>-?\d{1,9}), mName=(?P<name>.*?), mStatus=(?P<status>-?\d{1,9})\}"
)
_BATTERY_LINE = re.compile(r"^\s+([A-Za-z ]+): (\S+)\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A sensor that reports. `kind` is Android's word for what it measures, `status` its throttling level from 0 to 6."""

    name: str
    kind: str
    celsius: float
    status: int


@dataclass(frozen=True, kw_only=True)
class ThermalState:
    """A device's temperatures and throttling. `status` is None where the device does not say: that is unknown, not cool."""

    status: int | None
    temperatures: tuple[Temperature, ...]

    @property
    def status_name(self) -> str:
        """Return Android's word for the status, from `none` to `shutdown`, or `unavailable`."""
        if self.status is None:
            return "unavailable"
        return _STATUS_NAMES[self.status] if self.status < len(_STATUS_NAMES) else str(self.status)


@dataclass(frozen=True, kw_only=True)
class BatteryState:
    """A battery's charge and temperature; None where the device has no battery or does not say."""

    level_percent: float | None
    temperature_c: float | None
    powered_by: tuple[str, ...]


def parse_thermal(text: str) -> ThermalState:
    """Return what the thermal HAL reports now.

    Cached values, sensors that are off and values that are no temperatures are left out.
    """
    status = _STATUS.search(text)
    section = _HAL_SECTION.search(text)
    matches = _TEMPERATURE.finditer(section[1]) if section else ()
    temperatures = tuple(temperature for match in matches if (temperature := _temperature(match)))
    return ThermalState(status=int(status[1]) if status else None, temperatures=temperatures)


def parse_battery(text: str) -> BatteryState:
    """Return the battery's state as its service reports it."""
    values = dict(_BATTERY_LINE.findall(text))
    powered_by = tuple(
        key.removesuffix(" powered") for key, value in values.items() if key.endswith(" powered") and value == "true"
    )
    if values.get("present") != "true":
        return BatteryState(level_percent=None, temperature_c=None, powered_by=powered_by)
    level, scale, tenths = _number(values, "level"), _number(values, "scale"), _number(values, "temperature")
    return BatteryState(
        level_percent=100 * level / scale if level is not None and scale else None,
        temperature_c=tenths / 10 if tenths is not None else None,
        powered_by=powered_by,
    )


def _temperature(match: re.Match[str]) -> Temperature | None:
    celsius, kind = _finite(match["value"]), int(match["kind"])
    if celsius is None or celsius <= _LOWEST_PLAUSIBLE_C or celsius == 0.0 or kind in _BATTERY_CURRENT_LIMIT_KINDS:
        return None
    return Temperature(name=match["name"], kind=_KINDS.get(kind, f"type-{kind}"), celsius=celsius, status=int(match["status"]))


def _number(values: dict[str, str], key: str) -> float | None:
    return _finite(values[key]) if key in values else None


def _finite(text: str) -> float | None:
    """Return the number that a text is; None where it is none, or no finite one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
