"""A database with many launches -> how long each page takes; a run with and without viewers -> whether they change it.

    python bench/serve.py pages [--launches 100000] [postgresql://HOST/NAME]
    python bench/serve.py viewers recipes/quickstart.yaml [--viewers 50] [--blocks 12]

`pages` asks each page twice of the command as people start it: the first time nothing of it was read before. `viewers` launches
the recipe's first task on a virtual device in turn without viewers and with them, A B B A, while the server runs in both; each
viewer listens to the first page, and asks for it anew as often as one without script. Server and viewers are processes of this
machine.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from history import fill as fill_nights
from in_turn import Unwatched, first_task, launch_in_turn
from sqlalchemy.orm import aliased

from quadbench.artifacts import DeviceFacts, RunRecord, Sample, Status, Variant
from quadbench.devices import connect
from quadbench.measure import LaunchSettings, measure_launch
from quadbench.pipeline import built
from quadbench.pipeline.progress import seen_by_others
from quadbench.recipe import load_recipe
from quadbench.results.engine import DATABASE_VARIABLE, database_of, open_engine, writing
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.tables import RecordRow, SampleRow, UtcTime
from quadbench.rollout import roll_out

LAUNCHES_OF_A_RUN, SAMPLES = 20, 30
NIGHTS = 60
REFRESH_S = 15  # of a page that is read without script
PATHS = ("/", "/farm", "/runs", "/runs?page=100", "/nights", "/history", "/history/case-0", "/api/runs", "/api/farm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    of_pages = actions.add_parser("pages")
    of_pages.add_argument("--launches", type=int, default=100_000)
    of_pages.add_argument("database", nargs="?")
    of_viewers = actions.add_parser("viewers")
    of_viewers.add_argument("recipe")
    of_viewers.add_argument("--viewers", type=int, default=50)
    of_viewers.add_argument("--blocks", type=int, default=12)
    of_viewers.add_argument("--iterations", type=int, default=8)
    of_viewers.add_argument("--results", type=Path, default=Path("results"))
    of_looks = actions.add_parser("look")  # what `viewers` starts
    of_looks.add_argument("port", type=int)
    of_looks.add_argument("viewers", type=int)
    options = parser.parse_args()
    {"pages": pages, "viewers": viewers, "look": look}[options.action](options)


def pages(options: argparse.Namespace) -> None:
    """Fill a database, and time each page."""
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        os.environ[DATABASE_VARIABLE] = options.database or f"sqlite:///{layout.database}"
        began = time.perf_counter()
        fill_runs(layout, options.launches)
        engine = open_engine(database_of(layout))
        fill_nights(engine, NIGHTS)
        engine.dispose()
        print(f"filled with {options.launches} launches in {time.perf_counter() - began:.0f} s", flush=True)  # noqa: T201
        with server(layout) as port:
            ask(port, "/style.css")
            for path in PATHS:
                times = [_timed(port, path) for _ in range(2)]
                print(f"{path}: first {times[0]:.3f} s, then {times[1]:.3f} s", flush=True)  # noqa: T201


def fill_runs(layout: Layout, launches: int) -> None:
    """Store as many launches, as runs of usual size on two phones: the first, and copies of it that began later."""
    samples = tuple(
        Sample(metric="unet_ns", value=1e8 + n, task="restyle", component="unet", iteration=n) for n in range(SAMPLES)
    )
    with open_records(database_of(layout)) as records:
        for launch in range(LAUNCHES_OF_A_RUN):
            device = replace(RECORD.device, address=("s25", "tabs11")[launch % 2])
            records.store(replace(RECORD, record_id=f"r{launch}", device=device, launch=launch, samples=samples))
        with writing(records.engine) as connection:
            for number in range(1, launches // LAUNCHES_OF_A_RUN):
                copy_run(connection, number)


def copy_run(connection: sa.Connection, number: int) -> None:
    """Copy the first run."""
    began = RECORD.started_at + timedelta(minutes=number * LAUNCHES_OF_A_RUN)
    ending = f"-{number}"
    changed = {
        "record_id": RecordRow.record_id + ending,
        "run_id": sa.literal(f"{began:%Y%m%d-%H%M%S}-{number:04x}"),
        "started_at": sa.literal(began, UtcTime()),
        "ended_at": sa.literal(began, UtcTime()),
    }
    columns = [column for column in RecordRow.__table__.columns if column.name != "id"]
    rows = sa.select(*(changed.get(column.name, column) for column in columns)).where(RecordRow.run_id == RECORD.run_id)
    connection.execute(sa.insert(RecordRow).from_select(columns, rows))
    copy = aliased(RecordRow)
    columns = [column for column in SampleRow.__table__.columns if column.name not in ("id", "record")]
    values = sa.select(copy.id, *columns).join(RecordRow, RecordRow.id == SampleRow.record)
    values = values.join(copy, copy.record_id == RecordRow.record_id + ending).where(RecordRow.run_id == RECORD.run_id)
    connection.execute(sa.insert(SampleRow).from_select([SampleRow.record, *columns], values))


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
    """Launch without viewers and with them in turn, and compare."""
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    bundle = built(recipe, layout=layout, observer=Unwatched())
    launch = first_task(recipe, options.iterations)
    settings = LaunchSettings(run_id="viewers", layout=layout, runtime=recipe.runtime, timeout_s=recipe.measure.timeout_s)
    open_records(database_of(layout)).close()
    with (
        server(layout) as port,
        connect(["virtual:s25"], layout=layout) as devices,
        seen_by_others(Unwatched(), layout, recipe.name) as observer,
    ):
        rollout = roll_out([bundle], devices, layout=layout, observer=observer, runs_float=False)
        (installation,) = rollout.installations

        def launched(way: str) -> RunRecord:
            with looked_at(port, options.viewers if way == "watched" else 0):
                observer.launch(installation.address, launch, 1, 2)
                return measure_launch(installation, launch, settings)

        launch_in_turn("alone", "watched", options.blocks, launched)


@contextmanager
def looked_at(port: int, count: int) -> Iterator[None]:
    """Have as many viewers look for as long as the block runs."""
    if not count:
        time.sleep(2)  # as long as viewers take to be there
        yield
        return
    process = subprocess.Popen([sys.executable, __file__, "look", str(port), str(count)])
    time.sleep(2)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def look(options: argparse.Namespace) -> None:
    """Look as so many people do until the process is killed."""
    threads = [threading.Thread(target=_listen, args=(options.port,), daemon=True) for _ in range(options.viewers)]
    for thread in threads:
        thread.start()
    while True:
        ask(options.port, "/")
        time.sleep(REFRESH_S / options.viewers)


def _listen(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", "/live/now")
    answer = connection.getresponse()
    while answer.readline():
        pass


@contextmanager
def server(layout: Layout) -> Iterator[int]:
    """Serve a results folder, and give the port."""
    command = [sys.executable, "-m", "quadbench", "serve", "--results", str(layout.root), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    try:
        yield int(said["url"].rstrip("/").rpartition(":")[2])
    finally:
        process.terminate()
        process.communicate()


def ask(port: int, path: str) -> bytes:
    """Return what the server answers.

    Raises:
        RuntimeError: it cannot answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
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
