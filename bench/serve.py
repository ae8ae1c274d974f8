"""Large results -> how long pages and reports of them take, and whether viewers change what a run measures, as Markdown.

    python bench/serve.py pages [--launches 100000] [--rounds 5] [postgresql://HOST/NAME]
    python bench/serve.py reports [--rounds 5]
    python bench/serve.py viewers recipes/quickstart.yaml [--viewers 50] [--blocks 12] [--results results]

`--quick` makes each small enough to be tried. `pages` starts the command as people do, as often as there are rounds, and asks
each page of it twice: the first time nothing of it was read before. Then it has the report of another run written: CPU, clock,
memory and bytes. `reports` has `quadbench report` write those of the longest runs that a recipe may have. `viewers` launches
the recipe's first task on a virtual device in turn without viewers and with them, A B B A, while the server runs in both; half
of the viewers ask for the live part of the first page as its script does, the others for the page as one without script does.
Server, viewers and device are processes of this machine.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from history import fill as fill_nights
from in_turn import Unwatched, first_task, launch_in_turn

from quadbench.artifacts import DeviceFacts, RunRecord, Sample, Status, Variant
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.measure.launch import measure_launch
from quadbench.measure.launch_record import LaunchSettings
from quadbench.pipeline import ensure_bundle
from quadbench.pipeline.progress_observer import publish_progress
from quadbench.recipe.recipe import load_recipe
from quadbench.results.engine import DATABASE_VARIABLE, begin_write, database_of, open_engine
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.schema import RecordRow, UtcTime
from quadbench.rollout import roll_out

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.long_run import copy_launches, pack_stored, store_long_run

LAUNCHES_OF_A_RUN, SAMPLES = 20, 30
USUAL_LAUNCHES = 6  # of either variant on a device, of the run whose report is written beside the others
NIGHTS = 60
REFRESH_S = 15  # of a page that is read without script
LIVE_S = 2  # of the part that the script renews
SETTLE_S = 2  # before a launch, until nobody starts any more
PATHS = ("/", "/farm", "/runs", "/runs?page=100", "/nights", "/history", "/history/case-0")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    of_pages, of_reports, of_viewers = (actions.add_parser(name) for name in ("pages", "reports", "viewers"))
    for of_each in (of_pages, of_reports, of_viewers):
        of_each.add_argument("--quick", action="store_true")
    for of_times in (of_pages, of_reports):
        of_times.add_argument("--rounds", type=int, default=5)
    of_pages.add_argument("--launches", type=int, default=100_000)
    of_pages.add_argument("database", nargs="?")
    of_viewers.add_argument("recipe")
    of_viewers.add_argument("--viewers", type=int, default=50)
    of_viewers.add_argument("--blocks", type=int, default=12)
    of_viewers.add_argument("--iterations", type=int, default=8)
    of_viewers.add_argument("--results", type=Path, default=Path("results"))
    of_looks = actions.add_parser("look")  # what `viewers` starts
    of_looks.add_argument("port", type=int)
    of_looks.add_argument("viewers", type=int)
    options = parser.parse_args()
    {"pages": pages, "reports": reports, "viewers": viewers, "look": look}[options.action](options)


def say(*cells: object) -> None:
    """Print a line, of several cells a row of a table."""
    print(f"| {' | '.join(map(str, cells))} |" if len(cells) > 1 else cells[0], flush=True)  # noqa: T201


def said(times: list[float]) -> str:
    """Write times in seconds as their median and their greatest."""
    return f"{statistics.median(times):.2f} s, at most {max(times):.2f}"


def pages(options: argparse.Namespace) -> None:
    """Fill a database, and time each page."""
    launches, rounds = (2000, 2) if options.quick else (options.launches, options.rounds)
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        os.environ[DATABASE_VARIABLE] = options.database or f"sqlite:///{layout.database}"
        began = time.perf_counter()
        run_id = fill_runs(layout, launches)
        reported = store_long_run(layout, devices=2, tasks=2, launches=USUAL_LAUNCHES)
        engine = open_engine(database_of(layout))
        fill_nights(engine, NIGHTS)
        engine.dispose()
        say(f"{launches} launches, filled in {time.perf_counter() - began:.0f} s; {rounds} rounds, median and greatest")
        say("page", "first time", "then")
        say("---", "---", "---")
        times: dict[str, list[list[float]]] = {path: [] for path in (*PATHS, f"/runs/{run_id}")}
        for _ in range(rounds):
            with server(layout) as (port, _):
                ask(port, "/style.css")
                for path, measured in times.items():
                    measured.append([_timed(port, path), _timed(port, path)])
        for path, measured in times.items():
            say(f"`{path.replace(run_id, 'RUN')}`", *(said(list(of_one)) for of_one in zip(*measured, strict=True)))
        say(f"report of a run of usual size: {', '.join(_reported(layout, reported, rounds))}")


def reports(options: argparse.Namespace) -> None:
    """Store the longest runs, and time their reports: all launches of two devices with ten tasks each, and of fifty devices."""
    rounds = 2 if options.quick else options.rounds
    say("devices", "tasks", "launches", "samples", "CPU of `quadbench report`", "clock", "memory", "report")
    say(*["---"] * 8)
    for devices, tasks, launches in ((2, 10, 20), (5, 1, 20)) if options.quick else ((2, 10, 1000), (50, 1, 1000)):
        with TemporaryDirectory() as folder:
            layout = Layout(Path(folder))
            layout.root.mkdir(exist_ok=True)
            run_id = store_long_run(layout, devices=devices, tasks=tasks, launches=launches)
            engine = open_engine(database_of(layout))
            with engine.connect() as connection:
                samples = connection.scalar(sa.text("SELECT count(*) FROM samples"))
            engine.dispose()
            say(devices, tasks, 2 * devices * launches, samples, *_reported(layout, run_id, rounds))


def _reported(layout: Layout, run_id: str, rounds: int) -> tuple[str, str, str, str]:
    """Return of the command that writes a run's report: the CPU's and the clock's seconds, its memory, and the page's bytes."""
    busy, clock, peaks = zip(*(_report(layout, run_id) for _ in range(rounds)), strict=True)
    size = f"{layout.report(run_id).stat().st_size / 1e6:.2f} MB"
    return said(list(busy)), said(list(clock)), f"{max(peaks):.0f} MB", size


def _report(layout: Layout, run_id: str) -> tuple[float, float, float]:
    """Return the CPU's and the clock's seconds of the command, and the MB it had at most."""
    command = [sys.executable, "-m", "quadbench", "report", run_id, "--results", str(layout.root)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return busy_s, time.perf_counter() - began, after.ru_maxrss / 1024


def fill_runs(layout: Layout, launches: int) -> str:
    """Store as many launches, as runs of usual size on two phones, and return the id of the last one."""
    samples = tuple(
        Sample(metric="unet_ns", value=1e8 + n, task="restyle", component="unet", iteration=n) for n in range(SAMPLES)
    )
    run_id = RECORD.run_id
    with open_records(database_of(layout)) as records:
        for launch in range(LAUNCHES_OF_A_RUN):
            device = replace(RECORD.device, address=("s25", "tabs11")[launch % 2])
            records.store(replace(RECORD, record_id=f"r{launch}", device=device, launch=launch, samples=samples))
        with begin_write(records.engine) as connection:
            for number in range(1, launches // LAUNCHES_OF_A_RUN):
                run_id = copy_run(connection, number)
            pack_stored(connection)
    return run_id


def copy_run(connection: sa.Connection, number: int) -> str:
    """Copy the first run, and return the copy's id."""
    began = RECORD.started_at + timedelta(minutes=number * LAUNCHES_OF_A_RUN)
    run_id = f"{began:%Y%m%d-%H%M%S}-{number:04x}"
    moment = sa.literal(began, UtcTime())
    changed = {"run_id": sa.literal(run_id), "started_at": moment, "ended_at": moment}
    copy_launches(connection, RecordRow.run_id == RECORD.run_id, f"-{number}", changed)
    return run_id


RECORD = RunRecord(
    record_id="r",
    run_id="20260101-000000-0000",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    ended_at=datetime(2026, 1, 1, tzinfo=UTC),
    recipe_name="quickstart",
    recipe_digest="c" * 64,
    bundle_digest="b" * 64,
    compiled_digest="e" * 64,
    target="qnn-v79-69",
    device=DeviceFacts(
        address="s25",
        family="adb",
        serial="R5CX1",
        profile="s25",
        title="Galaxy S25",
        soc_model="SM8750",
        cpu="Oryon",
        android_release="15",
        fingerprint="samsung/pa1qxx/pa1q:15/AP3A/1:user/release-keys",
    ),
    variant=Variant.SHARED,
    launch=0,
    status=Status.OK,
    versions={f"version {n}": "of usual length" for n in range(12)},
    state={f"before.reading {n}": "41.5" for n in range(30)},
)


def viewers(options: argparse.Namespace) -> None:
    """Launch without viewers and with them in turn, and compare; tell which share of a CPU the server had meanwhile."""
    blocks, iterations = (1, 2) if options.quick else (options.blocks, options.iterations)
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    bundle = ensure_bundle(recipe, layout=layout, observer=Unwatched())
    launch = first_task(recipe, iterations)
    settings = LaunchSettings(run_id="viewers", layout=layout, runtime=recipe.runtime, timeout_s=recipe.measure.timeout_s)
    open_records(database_of(layout)).close()
    shares: dict[str, list[float]] = {"alone": [], "watched": []}
    with (
        server(layout) as (port, process),
        connect(parse_addresses(["virtual:s25"]), layout=layout) as devices,
        publish_progress(Unwatched(), layout, recipe.name) as observer,
    ):
        rollout = roll_out([bundle], devices, layout=layout, observer=observer, runs_float=False)
        (installation,) = rollout.installations

        def launched(way: str) -> RunRecord:
            with looked_at(port, options.viewers if way == "watched" else 0):
                observer.launch_started(installation.address, launch, 1, 2)
                began, busy_s = time.perf_counter(), cpu_s(process)
                record = measure_launch(installation, launch, settings)
                shares[way].append((cpu_s(process) - busy_s) / (time.perf_counter() - began))
                return record

        launch_in_turn("alone", "watched", blocks, launched)
    for way, of_way in shares.items():
        say(f"server {way}: {statistics.median(of_way):.1%} of a CPU, at most {max(of_way):.1%}")


def cpu_s(process: subprocess.Popen[str]) -> float:
    """Return how long a process has had a CPU."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextmanager
def looked_at(port: int, count: int) -> Iterator[None]:
    """Have as many viewers look for as long as the block runs."""
    if not count:
        time.sleep(SETTLE_S)
        yield
        return
    process = subprocess.Popen([sys.executable, __file__, "look", str(port), str(count)], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()  # all of them are there
    time.sleep(SETTLE_S)
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def look(options: argparse.Namespace) -> None:
    """Look as so many people do until the process is killed: half of them with the script, half without it."""
    listening = options.viewers // 2
    there = threading.Barrier(listening + 1)
    for _ in range(listening):
        threading.Thread(target=_listen, args=(options.port, there), daemon=True).start()
    there.wait()
    say("there")
    while True:
        ask(options.port, "/")
        time.sleep(REFRESH_S / (options.viewers - listening))


def _listen(port: int, there: threading.Barrier) -> None:
    ask(port, "/live/now")
    there.wait()
    while True:
        time.sleep(LIVE_S)
        ask(port, "/live/now")


@contextmanager
def server(layout: Layout) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Serve a results folder, and give the port and the process."""
    command = [sys.executable, "-m", "quadbench", "serve", "--results", str(layout.root), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    words = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    try:
        yield int(words["url"].rstrip("/").rpartition(":")[2]), process
    finally:
        process.terminate()
        process.communicate()


def ask(port: int, path: str) -> bytes:
    """Return what the server answers.

    Raises:
        RuntimeError: it cannot answer.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        return answer.read()
    finally:
        connection.close()


def _timed(port: int, path: str) -> float:
    began = time.perf_counter()
    ask(port, path)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
