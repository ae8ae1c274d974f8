"""Retention: stored runs, and for how long -> the old ones removed, but for those that somebody or a study has named."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from quadbench.errors import ArtifactError
from quadbench.results.engine import database_of, is_elsewhere, now_of, reading
from quadbench.results.layout import Layout
from quadbench.results.records import Records, read_records
from quadbench.results.runs import RunFile, read_run_file, run_ids
from quadbench.results.storage import storing
from quadbench.spec import read_json

log = logging.getLogger(__name__)


def prunable(ended_at: Mapping[str, datetime], referred: Mapping[str, Path], before: datetime) -> list[str]:
    """Return the runs that ended before a moment and that nothing refers to, oldest first. Pure."""
    old = [run_id for run_id, ended in ended_at.items() if ended < before and run_id not in referred]
    return sorted(old, key=lambda run_id: (ended_at[run_id], run_id))


def old_runs(layout: Layout, keep_s: float) -> tuple[list[str], dict[str, Path]]:
    """Return the runs of a results folder that may go, and those as old that stay, with the file that refers to each.

    Raises:
        ArtifactError: the database is damaged, or a file that may refer to runs.
    """
    own = set(run_ids(layout, None))
    if not own:
        return [], {}
    with read_records(database_of(layout)) as records:
        ended_at = {run_id: ended for run_id, ended in records.ended_at().items() if run_id in own}
        with reading(records.engine) as connection:
            before = now_of(connection) - timedelta(seconds=keep_s)
    referred = dict(_references(layout, own))
    kept = {run_id: path for run_id, path in referred.items() if ended_at[run_id] < before}
    return prunable(ended_at, referred, before), kept


def remove_run(records: Records, layout: Layout, run_id: str) -> int:
    """Remove a run's records, then its folder and its report, and return the number of records.

    Of what a worker measured for a farm the records stay in the farm's database, if that is not the folder's own: another
    results folder keeps the run.

    Raises:
        StorageError: one of them cannot be written.
    """
    count = 0 if _is_kept_elsewhere(layout, run_id) else records.remove(run_id)
    folder = layout.run(run_id)
    if folder.exists():
        with storing(layout.root):
            shutil.rmtree(folder)
    with storing(layout.root):
        layout.report(run_id).unlink(missing_ok=True)
    log.info("run %s: %d records are removed", run_id, count)
    return count


def _run_file(layout: Layout, run_id: str) -> RunFile | None:
    """Return the file of a run; None where it cannot be read."""
    try:
        return read_run_file(layout, run_id)
    except ArtifactError:
        return None


def _is_kept_elsewhere(layout: Layout, run_id: str) -> bool:
    """Say whether a worker measured the run for a farm whose records lie elsewhere: another results folder keeps it."""
    return is_elsewhere(layout) and (run := _run_file(layout, run_id)) is not None and run.is_part


def _references(layout: Layout, own: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield the runs that have a report which somebody asked for, or that a sweep or a comparison names, each with that file.

    What was measured for a farm whose database is not that of the folder is kept where it was fetched to.
    """
    for run_id in own:
        if not (report := layout.report(run_id)).exists():
            continue
        run = _run_file(layout, run_id)
        if run is None or not run.has_own_report:
            yield run_id, report
    for path in layout.studies():
        for run_id in _run_ids(read_json(path, fault=ArtifactError, hint="remove it; then nothing refers to its runs")):
            if run_id in own and not _is_kept_elsewhere(layout, run_id):
                yield run_id, path


def _run_ids(value: Any) -> Iterator[str]:
    """Yield every `run_id` in a JSON value, however deep."""
    match value:
        case dict():
            if isinstance(run_id := value.get("run_id"), str):
                yield run_id
            for part in value.values():
                yield from _run_ids(part)
        case list():
            for part in value:
                yield from _run_ids(part)
