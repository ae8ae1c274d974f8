"""Units: nanoseconds, bytes and ratios -> the text that readers see, in milliseconds, MB of 2^20 bytes and times."""

import math
from enum import StrEnum


class Unit(StrEnum):
    """What a figure is shown in; records hold nanoseconds and bytes."""

    MILLISECONDS = "ms"
    MEGABYTES = "MB"


_PER_UNIT = {Unit.MILLISECONDS: 1e6, Unit.MEGABYTES: 2.0**20}


def convert(value: float, unit: Unit) -> float:
    """Nanoseconds or bytes in `unit`."""
    return value / _PER_UNIT[unit]


def show(value: float, unit: Unit) -> str:
    """Nanoseconds or bytes as a number in `unit`, without its name."""
    return number(convert(value, unit))


def number(value: float) -> str:
    """Three significant digits below 100, whole numbers above, thousands apart."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{decimals}f}"


def times(ratio: float) -> str:
    """A ratio as `1.72×`, `14.3×`, `1,999×`."""
    return f"{ratio:,.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}×"


def decibels(value: float) -> str:
    """A PSNR. Records hold at most 99 dB, which stands for equal images too."""
    return "≥ 99 dB" if value >= 99 else f"{value:.1f} dB"


def seconds(value: float) -> str:
    """A duration of a stage or launch."""
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def plural(count: int, noun: str) -> str:
    """`1 launch`, `2 launches`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}{'es' if noun.endswith('ch') else 's'}"
