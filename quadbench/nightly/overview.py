"""Overview: the latest nights of every case on every device -> a line each: where its time stands, since when, what was ruled."""

from collections.abc import Sequence
from dataclasses import dataclass

from quadbench.artifacts.night import Measurement, Ruling
from quadbench.nightly.figures import name_of, said_change, said_value
from quadbench.nightly.segments import Segment, segments
from quadbench.report.figure_table import TextTable
from quadbench.report.night_words import words
from quadbench.report.versus import ALL_TASKS, PRIMARY


@dataclass(frozen=True, kw_only=True)
class Line:
    """A case on a device: its latest night, the rulings on that, and the segment in which the time for an image is."""

    case: str
    device: str
    address: str
    night: str
    kinds: tuple[str, ...]
    segment: Segment | None


def line_of(nights: Sequence[Measurement], rulings: Sequence[Ruling]) -> Line:
    """Return the line of a case on a device, from its nights, at least one, and the rulings on the latest."""
    latest = nights[-1]
    names = [name_of(point) for point in latest.points if point.key == PRIMARY]
    name = (ALL_TASKS, PRIMARY) if (ALL_TASKS, PRIMARY) in names else names[0] if names else None
    told = segments(nights, name) if name else ()
    where = latest.night, latest.case, latest.device
    kinds = dict.fromkeys(one.kind.value for one in rulings if (one.night, one.case, one.device) == where)
    return Line(
        case=latest.case,
        device=latest.device,
        address=latest.address,
        night=latest.night,
        kinds=tuple(kinds),
        segment=told[-1] if told else None,
    )


def line_table(lines: Sequence[Line]) -> TextTable:
    """Return the lines as a table."""
    return TextTable(
        title="Cases",
        columns=("Case", "Device", "Latest night", "Rulings", "Time of an image", "Since", "Change then"),
        numeric=(False, False, False, False, True, False, True),
        rows=tuple((line.case, words(line.address), line.night, _kinds(line), *_cells(line.segment)) for line in lines),
    )


def _kinds(line: Line) -> str:
    told = [kind for kind in line.kinds if kind != "CLEAN"]
    return ", ".join(told or line.kinds) or "–"


def _cells(segment: Segment | None) -> tuple[str, str, str]:
    if segment is None:
        return "–", "–", "–"
    change = "–" if segment.change is None else said_change(segment.change, PRIMARY)
    return said_value(segment.level, PRIMARY, is_ratio=segment.is_ratio), segment.first, change
