"""Databases: a results folder with a run -> cases: a database, a run's file or a run's scores with wrong bytes and values."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from quadbench.errors import ArtifactError
from quadbench.report.html import write_report
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import load_run
from support.bad_input.case import Case
from support.bad_input.specs import NO_FILES
from support.bad_input.values import brief, changed, keys, named, without, wrong_values

NAME = "quadbench.sqlite"
_LIE = "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE records (x)' WHERE name = 'records'"
_TO_GO_ON = ("measure", "runtime", "baselines", "devices", "hosted", "contents", "retries", "left_out")
# Keys that run.json may lack.
_OPTIONAL = ("published", "planned", "is_ended", "others", "recipe", "swept", "has_own_report", "is_part", *_TO_GO_ON)
_VALUES = ("'x'", "NULL", "-1", "9e999", "x'00ff'", "'[1'", "'{}'", "'2025-99-99'", "9223372036854775807", "''", "'\x1b[31m'")


def database_cases(dice: random.Random, run: Path) -> Iterator[Case]:
    """Yield cases of a copy of a results folder, whose latest run is reported, and which is opened for another."""
    content = (run / NAME).read_bytes()
    yield from _bytes(dice, run, content)
    for name, make in NO_FILES.items():
        yield Case(
            name=f"a database that is {name}", act=partial(_replaced, run, make), names=NAME if name != "not there" else ""
        )
    for name, statement in {
        "no tables": "PRAGMA writable_schema = ON; DELETE FROM sqlite_master",
        "no table of samples": "DROP TABLE packed_samples",
        "samples of no kind": "DELETE FROM sample_kinds",
        "too few values": "UPDATE packed_samples SET numbers = x''",
        "values that are not numbers": "UPDATE packed_samples SET numbers = 'x'",
        "wrong memory readings": "UPDATE packed_samples SET readings = '{\"kinds\": []}'",
        "a schema of later": "UPDATE identity SET schema_version = 9999",
        "a schema that is no number": "UPDATE identity SET schema_version = x'ff'",
        "no records": "DELETE FROM samples; DELETE FROM records",
        "a schema that lies": _LIE,
    }.items():
        yield Case(name=f"a database with {name}", act=partial(_executed, run, statement), may_pass=name == "no records")
    yield from _files(dice, run)


def _bytes(dice: random.Random, run: Path, content: bytes) -> Iterator[Case]:
    for number in range(40):
        yield Case(name=f"database changed {number}", act=partial(_with, run, {NAME: changed(content, dice)}), may_pass=True)
    for _ in range(20):
        page, size = dice.randrange(len(content) // 4096), dice.choice((1, 100, 4096))
        at = 4096 * page + dice.randrange(4096 - size + 1)
        spoilt = content[:at] + dice.randbytes(size) + content[at + size :]
        yield Case(name=f"database with {size} bytes of noise at {at}", act=partial(_with, run, {NAME: spoilt}), may_pass=True)
    for name, wrong in {
        "no bytes": b"",
        "text": b"not a database" * 100,
        "its head alone": content[:100],
        "half": content[: len(content) // 2],
    }.items():
        yield Case(name=f"a database of {name}", act=partial(_with, run, {NAME: wrong}), names=NAME if name != "no bytes" else "")


def _files(dice: random.Random, run: Path) -> Iterator[Case]:
    path = next(run.glob("runs/*/run.json")).relative_to(run)
    tree = json.loads((run / path).read_text())
    for place, value, wrong in wrong_values(tree, dice, 40):
        is_free = place[0] in ("deployments", *_OPTIONAL)
        content = json.dumps(wrong).encode()
        name = f"run.json with {named(place)} = {brief(value)}"
        yield Case(name=name, act=partial(_with, run, {str(path): content}), may_pass=is_free)
    for place in keys(tree):
        if "objects" not in place and place[0] not in ("schema_version", *_OPTIONAL):
            content = json.dumps(without(tree, place)).encode()
            yield Case(name=f"run.json without {named(place)}", act=partial(_with, run, {str(path): content}), names="run.json")
    for number in range(15):
        content = changed((run / path).read_bytes(), dice)
        yield Case(name=f"run.json changed {number}", act=partial(_with, run, {str(path): content}), may_pass=True)
    scores = str(path.with_name("quality.json"))
    for content in (b"", b"[]", b"{}", b"null", b'{"schema_version": 1}', b'{"values": [{"metric": 1}]}', b"NaN", b"[" * 9999):
        yield Case(name=f"scores {content[:20]!r}", act=partial(_with, run, {scores: content}), names="quality.json")


def _with(run: Path, files: dict[str, bytes], folder: Path) -> None:
    results = _copied(run, folder)
    for name, content in files.items():
        (results / name).write_bytes(content)
    _use(results)


def _executed(run: Path, statement: str, folder: Path) -> None:
    results = _copied(run, folder)
    with contextlib.closing(sqlite3.connect(results / NAME)) as database:
        try:
            database.executescript(statement)
            database.commit()
        except sqlite3.Error:
            return  # the database itself refuses such a value
    _use(results)


def _replaced(run: Path, make: Callable[[Path], object], folder: Path) -> None:
    results = _copied(run, folder)
    (results / NAME).unlink()
    make(results / NAME)
    _use(results)


def _copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "results", ignore=shutil.ignore_patterns("devices", "compiled", "reports")))


def _use(results: Path) -> None:
    """Write the latest run's report and open the database for another; whatever the first says, the second is tried."""
    layout = Layout(results)
    try:
        write_report(load_run(layout), layout)
    except ArtifactError:
        if os.path.lexists(layout.database):
            open_records(layout.database).close()
        raise
    open_records(layout.database).close()
