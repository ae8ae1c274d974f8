"""Night words: rulings and the figures that they are about -> short texts on one line, in which nothing is a code."""

from collections.abc import Sequence

from quadbench.artifacts.names import one_line
from quadbench.artifacts.night import Point, Ruling, RulingKind
from quadbench.artifacts.picture_metrics import PICTURE_METRICS
from quadbench.artifacts.run_record import Better
from quadbench.report.kpi import KPI_TITLES, KPI_UNITS
from quadbench.report.units import MORE, Unit, between, change, decibels, number, plural, show
from quadbench.report.versus import EXACT, PSNR, SIZES

_MOST_CHARACTERS = 300  # of a text from outside
_MOST_NAMES = 3  # of a list in a sentence
_MOST_VALUE = 1e18  # nanoseconds of decades, and more bytes than there are
_MOST_DB = 1000
_LEAST_SHARE = 0.001  # of files: what is less is told in bytes, of which each counts
_NO_CHARACTERS = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}  # which XML takes nowhere

COUNTED = {
    RulingKind.REGRESSION: "regression",
    RulingKind.INCONCLUSIVE: "inconclusive",
    RulingKind.MISSING: "missing",
    RulingKind.ENVIRONMENT: "changed by the environment",
    RulingKind.IMPROVEMENT: "improvement",
    RulingKind.CLEAN: "clean",
}
_TITLES = KPI_TITLES | {name: metric.title for name, metric in PICTURE_METRICS.items()}
_DIRECTIONS = {Unit.MILLISECONDS: ("slower", "faster"), Unit.MEGABYTES: ("bigger", "smaller")}
_PLURALS = {RulingKind.REGRESSION: "regressions", RulingKind.IMPROVEMENT: "improvements"}


def words(text: str) -> str:
    """Return a text from outside as every output of a night has it: on one line, short, and with nothing that is not shown."""
    return one_line(text, _MOST_CHARACTERS).translate(_NO_CHARACTERS)


def counted(kind: RulingKind, count: int) -> str:
    """Write how many there are of a kind: `2 regressions`, `1 missing`."""
    return f"{count} {COUNTED[kind] if count == 1 else _PLURALS.get(kind, COUNTED[kind])}"


def listed(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Write names as `a, b and c`, those beyond the first ones counted."""
    first, left_out = list(names[:most]), len(names) - most
    if left_out > 0:
        first.append(f"{left_out} more")
    return " and ".join((", ".join(first[:-1]), first[-1])) if len(first) > 1 else "".join(first)


def figure_name(key: str | None, task: str | None) -> str:
    """Return what a figure is called: `End to end, restyle`; nothing where all of them are meant."""
    if key is None:
        return ""
    title = "PSNR, mean" if key == PSNR else _TITLES.get(key) or words(key)
    return f"{title}, {words(task)}" if task else title


def directions(key: str | None) -> tuple[str, str]:
    """Return what a figure is when it grows, and when it shrinks: slower and faster, bigger and smaller, better and worse."""
    if metric := PICTURE_METRICS.get(key or ""):
        return ("better", "worse") if metric.better is Better.HIGHER else ("worse", "better")
    unit = KPI_UNITS.get(key or "")
    return _DIRECTIONS[unit] if unit else MORE


def value_words(point: Point | None) -> str:
    """Write a figure's value of a night; nothing where there is none that can be."""
    return with_unit(point.value, point.key) if point and abs(point.value) < _MOST_VALUE else ""


def with_unit(value: float, key: str) -> str:
    """Write a figure's value in its unit; of bytes of files all digits."""
    if key in SIZES:
        return f"{value:,.0f} bytes"
    unit = KPI_UNITS.get(key)
    return f"{show(value, unit)} {unit}" if unit else decibels(value) if key == PSNR else number(value)


def change_words(ruling: Ruling, point: Point | None) -> str:
    """Write by how much a figure changed: against the last good one where that was launched, else against what is usual."""
    if ruling.ratio is not None:
        return change(ruling.ratio, directions(ruling.key)) if is_ratio(ruling.ratio) else ""
    now = ruling.value if point is None else point.value if point.ratio is None else point.ratio
    if now is None or ruling.expected is None:
        return ""
    grows, shrinks = directions(ruling.key)
    if ruling.key == PSNR:
        difference = now - ruling.expected
        return f"{abs(difference):.1f} dB {grows if difference > 0 else shrinks}" if abs(difference) < _MOST_DB else ""
    if not is_ratio(now) or not is_ratio(ruling.expected):
        return ""
    if ruling.key in SIZES and abs(now / ruling.expected - 1) < _LEAST_SHARE:
        return f"{plural(round(abs(now - ruling.expected)), 'byte')} {'more' if now > ruling.expected else 'less'}"
    return change(now / ruling.expected, (grows, shrinks))


def interval_words(ruling: Ruling, point: Point | None) -> str:
    """Write how sure a change is: its interval, or why it has none."""
    if ruling.low is not None and ruling.high is not None and is_ratio(ruling.low) and is_ratio(ruling.high):
        return between(ruling.low, ruling.high, directions(ruling.key))
    if ruling.key is None:
        return ""
    return "exact" if ruling.key in EXACT else "not confirmed"


def is_ratio(value: float) -> bool:
    """Say whether a value can be a ratio, or anything that is drawn and divided: a number above 0 within reason."""
    return 1 / _MOST_VALUE < value < _MOST_VALUE
