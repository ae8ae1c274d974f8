"""Launch chart: a device of a comparison -> SVG: the time of an image of every launch by when it began, and how hot it was."""

from collections.abc import Sequence

from quadbench.report.chart import Place, rule, svg, text
from quadbench.report.sides import TimedLaunch
from quadbench.report.units import Unit, convert, number
from quadbench.report.versus import VersusDevice

_WIDTH, _LEFT, _RIGHT = 560, 52, 16
_UPPER, _LOWER = (30, 170), (206, 260)  # where the panels lie, from top to bottom
_COLOURS = {"A": "#1d5fa6", "B": "#b3560b"}
_CLASSES = {"A": "shared", "B": "per-graph"}
_GRID = "#d9dce1"
Values = Sequence[tuple[TimedLaunch, float]]


def launch_chart(device: VersusDevice) -> str | None:
    """Draw the launches that count; None where fewer than two have a time. The temperature stands below, where it is known."""
    times = [(one, convert(one.image_ns, Unit.MILLISECONDS)) for one in device.launches if one.image_ns]
    heat = [(one, one.temperature_c) for one in device.launches if one.temperature_c is not None]
    if len(times) < 2:
        return None
    began = [one.began_at for one in device.launches]
    seconds = max((max(began) - min(began)).total_seconds(), 1.0)

    def x(launch: TimedLaunch) -> float:
        return _LEFT + (launch.began_at - min(began)).total_seconds() / seconds * (_WIDTH - _LEFT - _RIGHT)

    body = _panel("an image, ms", _UPPER, [(one.side, (x(one), value)) for one, value in times])
    if heat:
        body += _panel("battery, °C", _LOWER, [(one.side, (x(one), value)) for one, value in heat])
    bottom = (_LOWER if heat else _UPPER)[1]
    for place, words, anchor in ((_LEFT, "0", "middle"), (_WIDTH - _RIGHT, f"{seconds / 60:.1f} min", "end")):
        body.append(text(place, bottom + 18, words, anchor=anchor))
    return svg(_WIDTH, bottom + 26, f"Launches on {device.device.address} by time", body)


def _panel(title: str, span: tuple[int, int], spots: Sequence[tuple[str, Place]]) -> list[str]:
    """Draw values over time, each in the colour of its side, on a scale that no noise fills alone."""
    top, bottom = span
    values = [value for _, (_, value) in spots]
    room = max(0.15 * (max(values) - min(values)), 0.02 * abs(max(values)), 0.01)
    low, high = min(values) - room, max(values) + room

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    parts = [text(_LEFT, top - 12, title)]
    for value in (low, (low + high) / 2, high):
        parts.append(rule("grid", (_LEFT, y(value)), (_WIDTH - _RIGHT, y(value)), _GRID))
        parts.append(text(_LEFT - 8, y(value) + 4, number(value), anchor="end"))
    for side, (x, value) in spots:
        css_class, colour = _CLASSES.get(side, "edge"), _COLOURS.get(side, _GRID)
        parts.append(f'<circle class="{css_class}" cx="{x:.1f}" cy="{y(value):.1f}" r="4" fill="{colour}"/>')
    return parts
