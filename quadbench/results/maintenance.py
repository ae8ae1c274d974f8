"""Remove old runs, unused parts and files that killed commands left from a results folder."""

import glob
import logging
import shutil
import time
from collections.abc import Container, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from quadbench.errors import ArtifactError
from quadbench.host import folder_lock
from quadbench.results.disk import storage_errors
from quadbench.results.engine import begin_read, database_now, database_of, is_external
from quadbench.results.layout import Layout
from quadbench.results.manifest import discard, remove_abandoned
from quadbench.results.progress import may_be_at_work
from quadbench.results.records import RecordStore, read_records
from quadbench.results.schema import JobRow, LeaseRow
from quadbench.results.stored_runs import RunFile, read_run_file, run_ids
from quadbench.spec import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OldRuns:
    """The ids of old runs in three groups: `removable`, `under_way` (still in progress), and `referred` (kept because a file uses
    the run). `referred` is a dict from a run id to the path of that file, such as a report or sweep.json.
    """

    removable: tuple[str, ...]
    referred: dict[str, Path]
    under_way: tuple[str, ...]


def prunable(ended_at: Mapping[str, datetime], staying: Container[str], before: datetime) -> list[str]:
    """Return the ids of runs that ended before the time `before`, oldest first. Skip the ids in `staying`: runs to be kept."""
    old = [run_id for run_id, ended in ended_at.items() if ended < before and run_id not in staying]
    return sorted(old, key=lambda run_id: (ended_at[run_id], run_id))


def old_runs(layout: Layout, keep_s: float) -> OldRuns:
    """Return runs that ended over `keep_s` seconds ago, as OldRuns. `removable` includes every run whose removal was interrupted.

    Raises:
        ArtifactError: the database, or a file that may refer to runs, is damaged.
    """
    half_removed = layout.half_removed_runs()
    own = set(run_ids(layout, None)).difference(half_removed)
    if not own:
        return OldRuns(removable=tuple(half_removed), referred={}, under_way=())
    with read_records(database_of(layout)) as records:
        ended_at = {run_id: ended for run_id, ended in records.ended_at().items() if run_id in own}
        with begin_read(records.engine) as connection:
            before = (now := database_now(connection)) - timedelta(seconds=keep_s)
            leased = connection.scalars(sa.select(LeaseRow.device).where(LeaseRow.job_until > now)).all()
            of_farm = set(connection.scalars(sa.select(JobRow.run_id).where(JobRow.ended_at.is_(None)).distinct()))
    under_way = of_farm | _at_work(layout, own, {device.partition("@")[0] for device in leased})
    referred = {run_id: path for run_id, path in _references(layout, own) if ended_at[run_id] < before}
    return OldRuns(
        removable=(*half_removed, *prunable(ended_at, under_way | referred.keys(), before)),
        referred=referred,
        under_way=tuple(sorted(run_id for run_id in under_way & own if ended_at[run_id] < before)),
    )


def remove_run(records: RecordStore, layout: Layout, run_id: str) -> int:
    """Remove a run's report, folder and launch records; return how many records were removed. If interrupted, call it again.

    If this host measured the run for a farm whose database lies elsewhere, the records stay there, as another results folder
    keeps the run.

    Raises:
        StorageError: the folder or the database cannot be written.
    """
    folder, aside = layout.run(run_id), layout.removed_run(run_id)
    with storage_errors(layout.root):
        layout.report(run_id).unlink(missing_ok=True)
        if folder.exists() and _is_kept_elsewhere(layout, run_id):
            with folder_lock(layout.runs):
                discard(folder)
            return 0
        if folder.exists():
            folder.rename(aside)  # marks the records as this folder's, if several folders share a database
        count = records.remove(run_id)
        if aside.exists():
            shutil.rmtree(aside)
    log.info("run %s: removed %d records", run_id, count)
    return count


def remove_left_over(layout: Layout) -> None:
    """Remove temporary folders and incomplete transfers from a results folder. Killed builds and runs leave them behind.

    Raises:
        StorageError: a folder cannot be opened.
    """
    for folder in (layout.bundles, layout.compiled_bundles, layout.kits, layout.runs):
        remove_abandoned(folder)
    names = {path.name for path in layout.runs.glob("[!.]*")}
    busy = _at_work(layout, names)
    for run_id in names - busy:
        for part in layout.runs.glob(f"{glob.escape(run_id)}/*/*/.*.part"):
            part.unlink(missing_ok=True)


def remove_unused_parts(layout: Layout, keep_s: float) -> None:
    """Remove the parts of builds that no build has used within the last `keep_s` seconds. Running builds keep theirs."""
    if not layout.parts.is_dir():
        return
    remove_abandoned(layout.parts)
    with storage_errors(layout.parts), folder_lock(layout.parts):
        for part in layout.parts.glob("[!.]*"):
            if part.stat().st_mtime < time.time() - keep_s:
                discard(part)


def _at_work(layout: Layout, own: Set[str], leased: Set[str] = frozenset()) -> set[str]:
    """Return the ids of runs that may be in progress: a progress file names the run, or the run is unfinished on a leased device.

    A command without a run, such as a comparison, may work on any unfinished run. A job on a leased device (`leased` holds
    serials) may work on any unfinished run with that device.
    """
    work = may_be_at_work(layout)
    named = {one.run_id for one in work if one.run_id}
    is_any = None in {one.run_id for one in work}
    if is_any or leased:
        open_runs = [run for run_id in own if (run := _run_file(layout, run_id)) and not run.is_ended]
        named |= {run.run_id for run in open_runs if is_any or any(device.serial in leased for device in run.devices)}
    return named


def _run_file(layout: Layout, run_id: str) -> RunFile | None:
    """Return the content of a run's run.json; None if it cannot be read."""
    try:
        return read_run_file(layout, run_id)
    except ArtifactError:
        return None


def _is_kept_elsewhere(layout: Layout, run_id: str) -> bool:
    """Return whether another results folder keeps a run: it was measured here for a farm with a database elsewhere."""
    return is_external(layout) and (run := _run_file(layout, run_id)) is not None and run.is_part


def _references(layout: Layout, own: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield (run id, file path) for each file that uses a run in `own`: a report that a user requested, a sweep.json, or a
    comparison.json. Skip a sweep's or comparison's run if another results folder keeps the run.
    """
    for run_id in own:
        if not (report := layout.report(run_id)).exists():
            continue
        run = _run_file(layout, run_id)
        if run is None or not run.has_own_report:
            yield run_id, report
    for path in layout.studies():
        for run_id in _run_ids(read_json(path, fault=ArtifactError, hint="remove the file; its runs can then be removed too")):
            if run_id in own and not _is_kept_elsewhere(layout, run_id):
                yield run_id, path


def _run_ids(value: Any) -> Iterator[str]:
    """Yield every `run_id` in a JSON value, at any depth."""
    match value:
        case dict():
            if isinstance(run_id := value.get("run_id"), str):
                yield run_id
            for part in value.values():
                yield from _run_ids(part)
        case list():
            for part in value:
                yield from _run_ids(part)
