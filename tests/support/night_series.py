"""Night series: ratios, subjects and environments -> nights of a case on a device, and launches in turn that confirm one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from quadbench.artifacts.night_record import Measurement, Point, Subject
from quadbench.report.formatting import Unit
from quadbench.report.versus import ALL_TASKS, SideRow, VersusDevice
from quadbench.statistics.launch_comparison import compare_launches
from quadbench.statistics.multiple_testing import LOOKS
from support.synthetic_run import S25

TASK = "restyle"
OLD, NEW = Subject(bundle="a" * 64), Subject(bundle="b" * 64)
FIRST = datetime(2026, 1, 1, 3, tzinfo=UTC)
YARDSTICK_NS, PICTURE_DB, ROM_BYTES = 2e9, 30.0, 3_000_000.0


def night(number: int, ratio: float, *, subject: Subject = OLD, yardstick: float = 1.0, rom: float = ROM_BYTES) -> Measurement:
    """A night in which the case took `ratio` times the yardstick's time, which took `yardstick` times its usual one."""
    ns = YARDSTICK_NS * yardstick
    return Measurement(
        night=night_id(number),
        case="restyle-s25",
        device="adb:R5CX",
        address="s25",
        measured_at=FIRST + timedelta(days=number),
        subject=subject,
        yardstick="d" * 64,
        environment={"Android": "16"},
        comparison=f"comparison-{number}",
        runs=("run-a", "run-b"),
        caveats=(),
        points=(
            Point(task=TASK, key="end_to_end", value=ratio * ns, yardstick=ns, ratio=ratio, low=ratio * 0.98, high=ratio * 1.02),
            Point(task=TASK, key="lora_rom", value=rom),
            Point(task=TASK, key="psnr", value=PICTURE_DB),
        ),
    )


def night_id(number: int) -> str:
    """The id of the night with a number."""
    return f"phones-{FIRST + timedelta(days=number):%Y-%m-%d}"


def steady(count: int, noise: float = 0.01, level: float = 1.5) -> list[Measurement]:
    """Nights whose ratios stray around a level."""
    rng = np.random.default_rng(count)
    return [night(number, level * float(np.exp(rng.normal(0, noise)))) for number in range(count)]


def launched(ratio: float, blocks: int = 6, noise: float = 0.004, key: str = "end_to_end") -> VersusDevice:
    """Launches in turn of which side B takes `ratio` times as long."""
    rng = np.random.default_rng(blocks)
    a, b = (np.exp(rng.normal(0, noise, 2 * blocks)) * level for level in (1.0, ratio))
    compared = compare_launches(a.tolist(), b.tolist(), margin=LOOKS.margin, confidence=LOOKS.confidence)
    row = SideRow(device=S25, task=TASK, key=key, title="End to end", unit=Unit.MILLISECONDS, a=None, b=None, comparison=compared)
    return VersusDevice(device=S25, blocks=blocks, looks=LOOKS, rows=(row,), differences={}, caveats=())


def around(measured: Measurement, **environment: str) -> Measurement:
    """A night in another environment."""
    return replace(measured, environment=measured.environment | environment)


def together(measured: Measurement, ratio: float, *tasks: str) -> Measurement:
    """A night of more tasks, over all of which an image took `ratio` times the yardstick's time."""
    first = measured.points[0]
    own = [replace(first, task=task, ratio=ratio, yardstick=YARDSTICK_NS * ratio) for task in (*tasks, ALL_TASKS)]
    return replace(measured, points=(*measured.points, *own))


def scored(measured: Measurement, **scores: float) -> Measurement:
    """A night whose pictures were scored, by metric."""
    points = tuple(Point(task=TASK, key=key, value=value) for key, value in scores.items())
    return replace(measured, points=(*measured.points, *points))
