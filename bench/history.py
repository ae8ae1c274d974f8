"""A database with the nights of 100,000 launches -> the time and memory of `history` and of a night's decisions.

    python bench/history.py [--launches 100000] [postgresql://HOST/NAME]

Without a database, one in a SQLite file that is removed again. `history` is the command without the start of Python; a night's
decisions are those of one more night of all cases on all devices, read from the database and stored there. Seconds are those of
the clock, and of the processor in parentheses; memory is the process's highest.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sqlalchemy as sa

from quadbench import cli
from quadbench.artifacts.night_record import Measurement, Point, Subject
from quadbench.nightly.night_file import Limits
from quadbench.nightly.series import MAX_NIGHTS
from quadbench.nightly.verdicts import detect, rulings_on
from quadbench.report.versus import ALL_TASKS, PRIMARY
from quadbench.results.engine import DATABASE_VARIABLE, database_of, open_engine
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore

LAUNCHES_OF_A_NIGHT = 12  # of a case on a device: three blocks A B B A
CASES, DEVICES = 10, 10
TASKS = ("restyle", "inpaint", "colorize")
KEYS = ("end_to_end", "unet_step", "switch", "first_image", "session_load", "peak_ram")
EXACT = ("foundation_rom", "lora_rom", "psnr")
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=100_000)
    parser.add_argument("database", nargs="?")
    options = parser.parse_args()
    nights = -(-options.launches // (LAUNCHES_OF_A_NIGHT * CASES * DEVICES))
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        os.environ[DATABASE_VARIABLE] = options.database or f"sqlite:///{layout.database}"
        engine = open_engine(database_of(layout))
        _timed("filled", lambda: fill(engine, nights))
        _timed("history", lambda: history(layout))
        _timed("history CASE, ten devices", lambda: history(layout, "case-0"))
        _timed("history CASE, one device", lambda: history(layout, "case-0", "--devices", "s25@0"))
        _timed("history --html", lambda: history(layout, "--html", str(Path(folder) / "all.html")))
        _timed("history CASE --html, ten devices", lambda: history(layout, "case-0", "--html", str(Path(folder) / "case.html")))
        _timed("a night's decisions", lambda: decide(NightStore(engine), nights))
        engine.dispose()


def history(layout: Layout, *words: str) -> None:
    """Print the history, to nowhere.

    Raises:
        RuntimeError: the command failed.
    """
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        code = cli.main(["history", *words, "--results", str(layout.root)])
    if code:
        raise RuntimeError(f"history ended with {code}")


def fill(engine: sa.Engine, nights: int) -> None:
    """Store as many nights of every case on every device, whose subject changes every tenth night."""
    rng = np.random.default_rng(0)
    store = NightStore(engine)
    for number in range(nights):
        store.begin(night_id(number), "phones", "0", [])
        for case in range(CASES):
            for device in range(DEVICES):
                store.store(measurement(rng, number, case, device))


def measurement(rng: np.random.Generator, number: int, case: int, device: int) -> Measurement:
    """Return a night of a case on a device."""
    ratios = np.exp(rng.normal(0.4, 0.01, (len(TASKS), len(KEYS)))).tolist()
    points = [
        Point(task=task, key=key, value=ratio * 2e9, yardstick=2e9, ratio=ratio, low=ratio * 0.98, high=ratio * 1.02)
        for task, row in zip(TASKS, ratios, strict=True)
        for key, ratio in zip(KEYS, row, strict=True)
    ]
    overall = Point(task=ALL_TASKS, key=PRIMARY, value=3e9, yardstick=2e9, ratio=ratios[0][0], low=1.0, high=2.0)
    return Measurement(
        night=night_id(number),
        case=f"case-{case}",
        device=f"adb:{device}",
        address=f"s25@{device}",
        measured_at=FIRST + timedelta(days=number, minutes=case),
        subject=Subject(bundle=f"{number // 10:064x}"),
        yardstick="d" * 64,
        environment={f"setting {n}": "a value of usual length" for n in range(12)},
        comparison=f"comparison-{number}-{case}-{device}",
        runs=("20260102-030000-bbbb", "20260102-030000-cccc"),
        caveats=(),
        points=(overall, *points, *(Point(task=task, key=key, value=30.0) for task in TASKS for key in EXACT)),
    )


def night_id(number: int) -> str:
    """Return the id of a night by its number."""
    return f"phones-{FIRST + timedelta(days=number):%Y-%m-%d}"


def decide(store: NightStore, nights: int) -> None:
    """Judge one more night of every case on every device, and store the rulings."""
    rng = np.random.default_rng(1)
    store.begin(night_id(nights), "phones", "0", [])
    for case in range(CASES):
        for device in range(DEVICES):
            tonight = measurement(rng, nights, case, device)
            history = store.series(tonight.case, tonight.device, latest=MAX_NIGHTS)
            suspected = detect(
                tonight, history, store.rulings_of(tonight.case, tonight.device), store.acknowledgements(tonight.case), Limits()
            )
            store.add(rulings_on(suspected, confirmed=None, comparison=None, owner=None, now=tonight.measured_at))


def _timed(what: str, do: Callable[[], object]) -> None:
    began, processor = time.perf_counter(), time.process_time()
    do()
    seconds, busy = time.perf_counter() - began, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {what} | {seconds:.2f} s ({busy:.2f} s) | {peak:.0f} MB |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
