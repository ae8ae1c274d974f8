"""Simulated nights of a case on a device -> how soon a change is told, how long it stands, and how often a verdict is wrong.

    python bench/nights.py [--series 1000] [--out nights.jsonl] [--kinds quiet ...] [--changes none ...] [--files nightly ...]
    python bench/nights.py --table nights.jsonl

The nights go through the gate and the rulings of quadbench.nightly as they are; launches in turn are drawn. A cell is a kind of
noise, a change and how often files change. Each cell has its own seed and is one line of the output file; cells that are there
are not run again. Changes come with new files in night 30. Files that never change are the same in all nights, so a change of
theirs is the device's, and every REGRESSION is false.
"""

import argparse
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadbench.artifacts import DeviceFacts
from quadbench.artifacts.night_record import Measurement, Point, Ruling, RulingKind, Subject
from quadbench.nightly.night_file import Limits
from quadbench.nightly.verdicts import detect, rulings_on
from quadbench.report.formatting import Unit
from quadbench.report.versus import SideRow, VersusDevice
from quadbench.statistics import Verdict
from quadbench.statistics.intervals import interval_of_mean
from quadbench.statistics.launch_comparison import compare_launches, share_interval, verdict_within
from quadbench.statistics.multiple_testing import LOOKS

NIGHTS, STEP_AT, NEXT_AT = 60, 30, 40  # NEXT_AT: the second step, or the step taken back
LAUNCH = 1.5  # the noise of one launch, in that of a night
LAUNCHES = 6  # of the case in a night
NOISE, SLOW = 0.01, 0.1  # of a night, and by how much the slow speed of a device is slower
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
PHONE = DeviceFacts(
    address="s25",
    family="adb",
    serial="R5CX",
    profile="s25",
    title="S25",
    soc_model="SM8750",
    cpu="Oryon",
    android_release=None,
    fingerprint=None,
)
Series = NDArray[np.float64]  # of logarithms, a value per night
Rng = np.random.Generator
Draw = Callable[[Rng], Series]
LIMIT = float(np.log1p(Limits().time))


def _quiet(rng: Rng, noise: float = NOISE) -> Series:
    return rng.normal(0, noise, NIGHTS)


def _correlated(rng: Rng, keeps: float = 0.8) -> Series:
    """Draw an AR(1) series whose values have the noise of a night."""
    steps, values = rng.normal(0, NOISE * np.sqrt(1 - keeps**2), NIGHTS), np.empty(NIGHTS)
    value = rng.normal(0, NOISE)
    for number, step in enumerate(steps):
        values[number] = value = keeps * value + step
    return values


def _waves(rng: Rng, period: float, height: float) -> Series:
    return height * np.sin(2 * np.pi * (np.arange(NIGHTS) / period + rng.random())) + _quiet(rng)


def _within(rng: Rng) -> Series:
    """Draw nights of launches three in ten of which are slow; a night is the mean of its launches."""
    return SLOW * rng.binomial(LAUNCHES, 0.3, NIGHTS) / LAUNCHES + _quiet(rng)


def _across(rng: Rng) -> Series:
    """Draw nights all of whose launches have one speed, which changes in one night in five."""
    return np.where(np.cumsum(rng.random(NIGHTS) < 0.2) % 2 == 1, SLOW, 0.0) + _quiet(rng)


def _wider(rng: Rng) -> Series:
    return _quiet(rng) * np.where(np.arange(NIGHTS) < STEP_AT, 1.0, 3.0)


KINDS: dict[str, Draw] = {
    "quiet": _quiet,
    "noisy": lambda rng: _quiet(rng, 3 * NOISE),
    "AR(1)": _correlated,
    "weekly": lambda rng: _waves(rng, 7, NOISE),
    "two speeds within": _within,
    "two speeds across": _across,
    "thermal waves": lambda rng: _waves(rng, rng.uniform(12, 25), 2 * NOISE),
    "outliers": lambda rng: _quiet(rng) + np.where(rng.random(NIGHTS) < 0.1, 0.18, 0.0),
    "missing nights": _quiet,
    "variance alone": _wider,
}
LAUNCH_NOISE = {"noisy": 3.0}  # in that of other kinds
MISSING = {"missing nights": 0.3}  # share of nights that are not measured
FILES = {"nightly": 1, "every tenth": 10, "never": NIGHTS}


def _step(size: float) -> Series:
    return np.where(np.arange(NIGHTS) >= STEP_AT, np.log1p(size), 0.0)


def _second(size: float) -> Series:
    return np.where(np.arange(NIGHTS) >= NEXT_AT, np.log1p(size), 0.0)


CHANGES: dict[str, Series] = {
    "none": _step(0.0),
    **{f"{size:.0%}": _step(size) for size in (0.02, 0.03, 0.05, 0.08)},
    "leak": np.log1p(0.002) * np.maximum(np.arange(NIGHTS) - STEP_AT + 1, 0),
    "taken back": _step(0.05) - _second(0.05),
    "two steps": _step(0.03) + _second(0.05),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A kind of noise, a change and how often files change, each by its name."""

    kind: str
    change: str
    files: str

    @property
    def seed(self) -> int:
        return zlib.crc32(f"{self.kind} {self.change} {self.files}".encode())

    @property
    def level(self) -> Series:
        """Return by which logarithm the files of each night are slower than the first ones. Files come when they change."""
        every = FILES[self.files]
        return CHANGES[self.change][np.arange(NIGHTS) // every * every] if self.files != "never" else np.zeros(NIGHTS)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A series: which nights were measured, were a REGRESSION, a new one, had launches, and each other kind's nights."""

    measured: Series
    told: Series
    new: Series
    launched: Series
    blocks: int
    others: dict[str, int]


def played(rng: Rng, cell: Cell) -> Outcome:
    """Judge the nights of a series, one after the other."""
    level = cell.level
    device = CHANGES[cell.change] if cell.files == "never" else level
    values = KINDS[cell.kind](rng) + device
    measured = rng.random(NIGHTS) >= MISSING.get(cell.kind, 0.0)
    nights, rulings, blocks = list[Measurement](), list[Ruling](), 0
    told, new, launches = np.zeros((3, NIGHTS))
    others = dict.fromkeys((RulingKind.IMPROVEMENT, RulingKind.ENVIRONMENT, RulingKind.INCONCLUSIVE), 0)
    for number in np.flatnonzero(measured).tolist():
        tonight = measurement(number, float(np.exp(values[number])), number // FILES[cell.files])
        suspected = detect(tonight, nights, rulings, (), Limits())
        confirmed = None
        if suspected.to_confirm and suspected.last_good:
            good = int(suspected.last_good.bundle) * FILES[cell.files]
            confirmed = launched(rng, cell.kind, float(level[number] - level[good]))
            launches[number], blocks = 1, blocks + confirmed.blocks
        comparison = f"confirming {number}" if confirmed else None
        of_night = rulings_on(suspected, confirmed=confirmed, comparison=comparison, owner=None, now=tonight.measured_at)
        rulings += of_night
        nights.append(tonight)
        regressions = [ruling for ruling in of_night if ruling.kind is RulingKind.REGRESSION]
        told[number], new[number] = bool(regressions), any(not ruling.is_standing for ruling in regressions)
        for kind in others:
            others[kind] += any(ruling.kind is kind for ruling in of_night)
    named = {kind.value: count for kind, count in others.items()}
    return Outcome(measured=measured.astype(float), told=told, new=new, launched=launches, blocks=blocks, others=named)


def measurement(number: int, ratio: float, files: int) -> Measurement:
    """Return a night whose time was so many times the yardstick's."""
    return Measurement(
        night=f"night-{number:03d}",
        case="case",
        device="adb:R5CX",
        address="s25",
        measured_at=FIRST + timedelta(days=number),
        subject=Subject(bundle=str(files)),
        yardstick="yardstick",
        environment={},
        comparison="comparison",
        runs=("a", "b"),
        caveats=(),
        points=(Point(task="task", key="end_to_end", value=ratio * 1e9, ratio=ratio),),
    )


def launched(rng: Rng, kind: str, effect: float) -> VersusDevice:
    """Draw launches in turn whose second side is slower by a logarithm, until a look tells what was suspected."""
    sides = rng.normal(0, LAUNCH * NOISE * LAUNCH_NOISE.get(kind, 1.0), (2, 2 * LOOKS.at[-1]))
    if kind == "two speeds within":
        sides += np.where(rng.random(sides.shape) < 0.3, SLOW, 0.0)
    a, b = np.exp(sides + np.array([[0.0], [effect]]))
    for blocks in LOOKS.at:
        lists = a[: 2 * blocks].tolist(), b[: 2 * blocks].tolist()
        compared = compare_launches(*lists, margin=LOOKS.margin, confidence=LOOKS.confidence)
        if verdict_within(compared, LIMIT) is not Verdict.INCONCLUSIVE:
            break
    row = SideRow(
        device=PHONE, task="task", key="end_to_end", title="", unit=Unit.MILLISECONDS, a=None, b=None, comparison=compared
    )
    return VersusDevice(device=PHONE, blocks=blocks, looks=LOOKS, rows=(row,), differences={}, caveats=())


def summary(cell: Cell, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return a cell's counts: of nights, unless they are named otherwise. `later` has a share per series."""
    worse, delays, later, mended = cell.level > np.log1p(0.0005), list[int](), list[float](), list[int]()
    quiet = np.zeros(4)  # nights at the first level before any regression: all, told, newly told, launched
    for one in outcomes:
        clean = one.measured.astype(bool) & ~worse
        clean[int(np.argmax(worse)) :] &= not worse.any()
        quiet += [float(each[clean].sum()) for each in (one.measured, one.told, one.new, one.launched)]
        begun = worse & (one.measured > 0)
        first = np.flatnonzero(begun & (one.told > 0))
        if first.size:
            delays.append(int(one.measured[STEP_AT : first[0]].sum()))
            after = begun & (np.arange(NIGHTS) > first[0])
            later += [float(one.told[after].mean())] if after.any() else []
            back = (one.measured > 0) & ~worse & (np.arange(NIGHTS) > first[0])
            mended += [int(one.told[back].sum())] if back.any() else []
    return {
        **asdict(cell),
        "seed": cell.seed,
        "series": len(outcomes),
        "nights": sum(int(one.measured.sum()) for one in outcomes),
        "told": len(delays),
        "delays": [float(np.quantile(delays, share)) for share in (0.5, 0.9)] if delays else None,
        "later": [float(np.mean(later)), *(interval_of_mean(later, 0.95) or (None, None))] if later else None,
        "mended_after": [float(np.quantile(mended, share)) for share in (0.5, 0.9)] if mended else None,
        "quiet": dict(zip(("nights", "told", "new", "launched"), map(int, quiet), strict=True)),
        "launched": int(sum(one.launched.sum() for one in outcomes)),
        "blocks": sum(one.blocks for one in outcomes),
        "others": {kind: sum(one.others[kind] for one in outcomes) for kind in outcomes[0].others},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--out", type=Path, default=Path("nights.jsonl"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(line) for line in options.table.read_text().splitlines()]))  # noqa: T201
        return
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    there = {(one["kind"], one["change"], one["files"]) for one in map(json.loads, lines)}
    cells = [
        Cell(kind=kind, change=change, files=files)
        for change in options.changes
        for files in options.files
        for kind in options.kinds
    ]
    for cell in cells:
        if (cell.kind, cell.change, cell.files) not in there:
            rng = np.random.default_rng(cell.seed)
            line = json.dumps(summary(cell, [played(rng, cell) for _ in range(options.series)]))
            with options.out.open("a") as file:
                file.write(f"{line}\n")


def table(rows: Sequence[dict]) -> str:
    """Return Markdown: each cell with a change, then false verdicts by kind and how often files change, pooled over changes."""
    changed = (
        "| change | files | nights | told | delay, median and 90 % | later nights told | nights until mended, median and 90 % |"
        " launched | blocks each |\n" + "|---" * 9 + "|"
    )
    false = (
        "| files | nights | nights without a change | REGRESSION, new, of 1,000 | REGRESSION, all, of 1,000 |"
        " IMPROVEMENT | ENVIRONMENT | INCONCLUSIVE | launched |\n" + "|---" * 9 + "|"
    )
    cells = [_line(row) for row in rows if row["change"] != "none" and row["files"] != "never"]
    places = dict.fromkeys((row["files"], row["kind"]) for row in rows)
    pooled = [_pooled([row for row in rows if (row["files"], row["kind"]) == place]) for place in places]
    return "\n".join((changed, *cells, "", false, *pooled))


def _line(row: dict) -> str:
    later = row["later"]
    within = "" if not later or later[1] is None else f" ({max(later[1], 0):.1%} to {min(later[2], 1):.1%})"
    cells = (
        row["change"],
        row["files"],
        row["kind"],
        _share(row["told"], row["series"]),
        _pair(row["delays"]),
        f"{later[0]:.1%}{within}" if later else "–",
        _pair(row["mended_after"]),
        f"{row['launched'] / row['nights']:.1%}",
        f"{row['blocks'] / row['launched']:.1f}" if row["launched"] else "–",
    )
    return f"| {' | '.join(cells)} |"


def _pooled(rows: Sequence[dict]) -> str:
    """Return the false verdicts of a kind. Other kinds of verdicts are those of the cell without a change."""
    quiet = {name: sum(row["quiet"][name] for row in rows) for name in ("nights", "new", "told")}
    low, high = share_interval(quiet["new"], quiet["nights"])
    cells = [
        rows[0]["files"],
        rows[0]["kind"],
        f"{quiet['nights']:,}",
        f"{1000 * quiet['new'] / quiet['nights']:.2f} ({1000 * low:.2f} to {1000 * high:.2f})",
        f"{1000 * quiet['told'] / quiet['nights']:.2f}",
    ]
    none = next((row for row in rows if row["change"] == "none"), None)
    others = [f"{1000 * count / none['nights']:.1f}" for count in none["others"].values()] if none else ["–"] * 3
    launches = f"{none['launched'] / none['nights']:.1%}" if none else "–"
    return f"| {' | '.join((*cells, *others, launches))} |"


def _pair(values: Sequence[float] | None) -> str:
    return "{:.0f} and {:.0f}".format(*values) if values else "–"


def _share(count: int, of: int) -> str:
    low, high = share_interval(count, of)
    return f"{count / of:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    main()
