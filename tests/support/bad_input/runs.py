"""Runs: a results folder with a run -> cases: one byte of any file is another when it is run again, reported or scored."""

import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from quadbench import pipeline
from quadbench.artifacts.run_record import file_refs
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import QuadbenchError
from quadbench.harness.event_log import EVENTS
from quadbench.harness.program import OVERRIDE
from quadbench.quality import score_run
from quadbench.recipe.recipe import load_recipe
from quadbench.report.html import write_report
from quadbench.results.digests import sha256_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import CHECKSUM, MANIFEST
from quadbench.results.records import read_records
from quadbench.results.stored_runs import load_run
from support.bad_input.case import Case
from support.watcher import Silent

_LEFT_OUT = ("devices", "harness")  # of the copy of a results folder: what a device has is sent anew
Use = Callable[[Layout], object]


def run_cases(dice: random.Random, recipe: Path, run: Path, harness: Path) -> Iterator[Case]:
    """Yield, for every file that a stage reads of a stored run, a case in which one byte of it is another."""
    layout = Layout(run)
    stored = load_run(layout)
    pictures = {stored.stored.path(file) for file in file_refs(tuple(task.items for task in stored.bundle.tasks))}
    painted = {layout.file(path) for record in stored.records for path in record.images.values()}
    for file in (file for folder in (layout.bundles, layout.compiled_bundles) for file in folder.rglob("*") if file.is_file()):
        yield _case(dice, run, file, "run again", partial(_run, recipe, harness))
        if file in pictures or file.name in (MANIFEST, CHECKSUM):
            for name, use in _USES.items():
                if file.is_relative_to(layout.bundles):
                    yield _case(dice, run, file, name, use)
    for file in painted:
        for name, use in _USES.items():
            yield _case(dice, run, file, name, use)
    for events in layout.root.rglob(EVENTS):
        yield _case(dice, run, events, "report", _report, within=b'"sha256"')


def _case(dice: random.Random, run: Path, file: Path, name: str, use: Use, *, within: bytes = b"") -> Case:
    """Return the case of a file one byte of which is another: any, or one after the first place of a text."""
    content = file.read_bytes()
    first = content.index(within)
    place = first + int(dice.random() * (80 if within else len(content)))
    told = {MANIFEST: "{folder}", CHECKSUM: MANIFEST}.get(file.name, file.name)
    relative = file.relative_to(run)
    return Case(name=f"{name}: {relative}", act=partial(_flipped, run, relative, place, use), names=told)


def _flipped(run: Path, file: Path, place: int, use: Use, folder: Path) -> None:
    """Use a copy of the results folder with one other byte; nothing may be made of it, and the records stay as they were."""
    layout = Layout(Path(shutil.copytree(run, folder / "results", ignore=shutil.ignore_patterns(*_LEFT_OUT))))
    content = bytearray((layout.root / file).read_bytes())
    content[place] ^= 0x04
    (layout.root / file).write_bytes(content)
    before = _state(layout)
    try:
        use(layout)
    except QuadbenchError:
        assert _state(layout) == before
        assert all(path.name == sha256_of(path) for path in layout.devices.rglob("objects/*"))
        raise


def _state(layout: Layout) -> tuple[object, ...]:
    """Return what stages have made: artifacts, records, reports and scores."""
    with read_records(layout.database) as records:
        stored = [records.run_records(run) for run in records.run_ids(limit=10)]
    places = (layout.bundles.iterdir(), layout.compiled_bundles.iterdir(), layout.root.rglob("quality.json"))
    reports = [(path, path.stat().st_mtime_ns) for path in layout.root.glob("reports/*")]
    return stored, reports, *(sorted(paths) for paths in places)


def _run(recipe: Path, harness: Path, layout: Layout) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OVERRIDE, str(harness))
        pipeline.run(load_recipe(recipe), parse_addresses(["local"]), layout=layout, observer=Silent())


def _report(layout: Layout) -> None:
    write_report(load_run(layout), layout)


def _score(layout: Layout) -> None:
    score_run(layout, metrics=["psnr"])


_USES: dict[str, Use] = {"report": _report, "quality": _score}
