"""Earlier: a results folder and a run that is wanted or there -> the earlier run that it is held against."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from quadbench.artifacts import RunResult
from quadbench.errors import ArtifactError, UserError
from quadbench.report.baseline import require_alike
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import RunFile, load_run, named_run, read_run_file, run_ids

LATEST = "latest"
_LOOKED_AT = 200  # runs, when looking for the latest that fits

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LaterRun:
    """A run that is held against an earlier one: of what, on which devices, what a sweep set in it, and its id if it has one."""

    recipe_name: str
    tasks: Sequence[str]
    addresses: Sequence[str]
    swept: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None


def earlier_run(layout: Layout, word: str, wanted: LaterRun) -> RunResult | None:
    """Return the run of this id, or for `latest` the latest before it of which all came to its end; None: there is none.

    Raises:
        UserError: the named run is the wanted one itself, has none of the tasks or lacks a device, or there are no runs.
        QuadbenchError: there is no such run, or it is damaged.
    """
    if word == LATEST:
        return _latest(layout, wanted)
    if not run_ids(layout, 1):
        hint = "--results names the folder with the baseline, which a CI job keeps from one run to the next"
        raise UserError(f"'{layout.root}' holds no run that could be a baseline", hint=hint)
    baseline = named_run(layout, word)
    require_alike(baseline, wanted.tasks, wanted.addresses, wanted.run_id)
    return baseline


def _latest(layout: Layout, wanted: LaterRun) -> RunResult | None:
    ids = run_ids(layout, None if wanted.run_id else _LOOKED_AT)
    earlier = ids[ids.index(wanted.run_id) + 1 :] if wanted.run_id in ids else ids
    for run_id in earlier[:_LOOKED_AT]:
        try:
            if _is_whole(read_run_file(layout, run_id), wanted) and _fits(run := load_run(layout, run_id), wanted):
                return run
        except ArtifactError as error:
            log.warning("run %s is passed over: %s", run_id, error)
    return None


def _is_whole(run: RunFile, wanted: LaterRun) -> bool:
    """Say whether a run planned launches, as sides of a comparison do not, and came to its end, as it was wanted."""
    return bool(run.planned) and run.is_ended and not run.left_out and run.swept == wanted.swept


def _fits(run: RunResult, wanted: LaterRun) -> bool:
    """Say whether a run is of the same recipe and devices, and no launch of it failed."""
    if run.bundle.recipe_name != wanted.recipe_name or {task.name for task in run.bundle.tasks} != set(wanted.tasks):
        return False
    try:
        require_alike(run, wanted.tasks, wanted.addresses)
    except UserError:
        return False
    return all(record.status.is_fine for record in run.records)
