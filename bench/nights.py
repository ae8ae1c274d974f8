"""Simulated nights of a case on a device -> how often the judge is wrong, how late it sees a step, and what confirming costs.

    python bench/nights.py [--series 1000] [--figures 1] [--steps 0 0.03 0.05 0.08] [--kinds quiet noisy ...]

The nights go through the gate and the rulings of quadbench.nightly as they are; launches in turn are drawn. Files change every
tenth night; those that come in night 30 are slower by the step in every figure, the others are not. Every figure strays by
itself, which is the worst case for all of them together.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from quadbench.artifacts import DeviceFacts
from quadbench.artifacts.night_record import Measurement, Point, Ruling, RulingKind, Subject
from quadbench.nightly.night_file import Limits
from quadbench.nightly.verdicts import Detection, detect, rulings_on
from quadbench.report.formatting import Unit
from quadbench.report.versus import SideRow, VersusDevice
from quadbench.statistics import Verdict
from quadbench.statistics.launch_comparison import compare_launches, share_interval, verdict_within
from quadbench.statistics.multiple_testing import LOOKS

NIGHTS, STEP_AT, FILES_LAST = 60, 30, 10
LAUNCH = 1.5  # the noise of one launch, in that of a night
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
Table = NDArray[np.float64]  # of logarithms: nights, figures
Draw = Callable[[np.random.Generator, tuple[int, int]], Table]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of device: how a night's figures stray, and the noise of that without its far values."""

    name: str
    noise: float
    draw: Draw


def _bad(rng: np.random.Generator, shape: tuple[int, int]) -> Table:
    return rng.normal(0, 0.01, shape) + np.where(rng.random((shape[0], 1)) < 0.1, 0.18, 0.0)


def _drift(rng: np.random.Generator, shape: tuple[int, int]) -> Table:
    return rng.normal(0, 0.01, shape) + 0.0005 * np.arange(shape[0])[:, None]


def _modes(rng: np.random.Generator, shape: tuple[int, int]) -> Table:
    slow = np.cumsum(rng.random((shape[0], 1)) < 0.2, axis=0) % 2 == 1
    return rng.normal(0, 0.01, shape) + np.where(slow, 0.1, 0.0)


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="quiet", noise=0.01, draw=lambda rng, shape: rng.normal(0, 0.01, shape)),
        Kind(name="noisy", noise=0.03, draw=lambda rng, shape: rng.normal(0, 0.03, shape)),
        Kind(name="far values", noise=0.01, draw=lambda rng, shape: 0.01 * rng.standard_t(3, shape)),
        Kind(name="bad nights", noise=0.01, draw=_bad),
        Kind(name="drift", noise=0.01, draw=_drift),
        Kind(name="two modes", noise=0.01, draw=_modes),
    )
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A series: which rulings each night had beside CLEAN, and after how many blocks each confirmation ended."""

    kinds: tuple[frozenset[RulingKind], ...]
    blocks: tuple[int, ...]


def played(rng: np.random.Generator, kind: Kind, step: float, figures: int) -> Outcome:
    """Judge the nights of a series, one after the other."""
    strays = kind.draw(rng, (NIGHTS, figures))
    nights: list[Measurement] = []
    rulings: list[Ruling] = []
    kinds: list[frozenset[RulingKind]] = []
    blocks: list[int] = []
    for number, row in enumerate(strays):
        tonight = measurement(number, row + level(number // FILES_LAST, step))
        suspected = detect(tonight, nights, rulings, (), Limits())
        confirmed = None
        if suspected.to_confirm and suspected.last_good:
            effect = level(number // FILES_LAST, step) - level(int(suspected.last_good.bundle), step)
            confirmed = launched(rng, suspected, effect, kind.noise * LAUNCH, figures)
            blocks.append(confirmed.blocks)
        comparison = "confirming" if confirmed else None
        told = rulings_on(suspected, confirmed=confirmed, comparison=comparison, owner=None, now=tonight.measured_at)
        rulings += told
        nights.append(tonight)
        kinds.append(frozenset(ruling.kind for ruling in told) - {RulingKind.CLEAN})
    return Outcome(kinds=tuple(kinds), blocks=tuple(blocks))


def level(files: int, step: float) -> float:
    """Return the logarithm by which some files, counted from 0, are slower than the first ones."""
    return float(np.log1p(step)) if files >= STEP_AT // FILES_LAST else 0.0


def measurement(number: int, row: Table) -> Measurement:
    """Return a night whose figures stray so."""
    ratios = np.exp(row).tolist()
    points = (
        Point(task=f"task{n}", key="end_to_end", value=ratio * 1e9, yardstick=1e9, ratio=ratio) for n, ratio in enumerate(ratios)
    )
    return Measurement(
        night=f"night-{number:03d}",
        case="case",
        device="adb:R5CX",
        address="s25",
        measured_at=FIRST + timedelta(days=number),
        subject=Subject(bundle=str(number // FILES_LAST)),
        yardstick="yardstick",
        environment={},
        comparison="comparison",
        runs=("a", "b"),
        caveats=(),
        points=tuple(points),
    )


def launched(rng: np.random.Generator, suspected: Detection, effect: float, noise: float, figures: int) -> VersusDevice:
    """Draw launches in turn whose second side is slower by a logarithm, until a look tells all that was suspected."""
    a, b = rng.normal(0, noise, (2, figures, 2 * LOOKS.at[-1]))
    wanted = {one.task for one in suspected.suspects if not one.is_vague and one.known is None} or {"task0"}
    for blocks in LOOKS.at:
        rows = [_row(n, np.exp(a[n, : 2 * blocks]), np.exp(effect + b[n, : 2 * blocks])) for n in range(figures)]
        limit = float(np.log1p(Limits().time))
        told = [verdict_within(row.comparison, limit) for row in rows if row.task in wanted and row.comparison]
        if Verdict.INCONCLUSIVE not in told:
            break
    return VersusDevice(device=PHONE, blocks=blocks, looks=LOOKS, rows=tuple(rows), differences={}, caveats=())


def _row(number: int, a: Table, b: Table) -> SideRow:
    compared = compare_launches(a.tolist(), b.tolist(), margin=LOOKS.margin, confidence=LOOKS.confidence)
    return SideRow(
        device=PHONE,
        task=f"task{number}",
        key="end_to_end",
        title="End to end",
        unit=Unit.MILLISECONDS,
        a=None,
        b=None,
        comparison=compared,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--figures", type=int, default=1)
    parser.add_argument("--steps", type=float, nargs="+", default=[0.0, 0.03, 0.05, 0.08])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    print(  # noqa: T201
        "| nights | step | seen the same night | within 5 | in the end | delay, median and 90 % | REGRESSION wrongly, of nights |"
        " IMPROVEMENT wrongly | ENVIRONMENT | INCONCLUSIVE | confirmed | blocks each |\n" + "|---" * 12 + "|"
    )
    for name in options.kinds:
        for step in options.steps:
            rng = np.random.default_rng(0)
            outcomes = [played(rng, KINDS[name], step, options.figures) for _ in range(options.series)]
            print(f"| {name} | {step:.0%} | {' | '.join(_cells(outcomes, step))} |", flush=True)  # noqa: T201


def _cells(outcomes: Sequence[Outcome], step: float) -> list[str]:
    """Return a row: how soon the step was seen, what was ruled on nights before it, or on all without one, and the cost."""
    seen = [_delay(outcome) for outcome in outcomes] if step else []
    sooner = [sum(delay is not None and delay <= most for delay in seen) for most in (0, 4, NIGHTS)]
    delays = [delay for delay in seen if delay is not None]
    median = f"{np.median(delays):.0f}, {np.quantile(delays, 0.9):.0f}" if delays else "–"
    quiet = [kinds for outcome in outcomes for kinds in outcome.kinds[: STEP_AT if step else NIGHTS]]
    counts = Counter(kind for kinds in quiet for kind in kinds)
    wrong = [RulingKind.REGRESSION, RulingKind.IMPROVEMENT, RulingKind.ENVIRONMENT, RulingKind.INCONCLUSIVE]
    blocks = [taken for outcome in outcomes for taken in outcome.blocks]
    return [
        *(_share(count, len(seen)) if seen else "–" for count in sooner),
        median,
        *(_share(counts[kind], len(quiet)) for kind in wrong),
        f"{len(blocks) / len(outcomes) / NIGHTS:.1%} of nights",
        f"{np.mean(blocks):.1f}" if blocks else "–",
    ]


def _delay(outcome: Outcome) -> int | None:
    """Return how many nights after the first one of the step it was ruled a regression."""
    after = outcome.kinds[STEP_AT:]
    return next((night for night, kinds in enumerate(after) if RulingKind.REGRESSION in kinds), None)


def _share(count: int, of: int) -> str:
    low, high = share_interval(count, of)
    return f"{count / of:.2%} ({low:.2%} to {high:.2%})"


if __name__ == "__main__":
    main()
