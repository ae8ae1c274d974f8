"""Run changes: a run's file, which several processes may change -> the file with what is new, each change whole."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeVar

from quadbench.errors import ArtifactError
from quadbench.host import folder_lock
from quadbench.results.ids import RUN, stored_ids, unknown_id
from quadbench.results.layout import Layout
from quadbench.results.runs import RunFile, read_run_file, save_run
from quadbench.results.storage import storing

ItemT = TypeVar("ItemT")


def load_run_file(layout: Layout, run_id: str) -> RunFile:
    """Read the file of a run, which need not have any record yet.

    Raises:
        UserError: this results folder has no such run.
        ArtifactError: the file is damaged, or lost.
    """
    try:
        is_there = layout.run_file(run_id).exists()
    except ValueError:
        is_there = False
    if is_there:
        return read_run_file(layout, run_id)
    if stored_ids(layout).get(run_id) == RUN:
        raise ArtifactError(f"run {run_id} has lost '{layout.run_file(run_id)}', and cannot go on", hint="its records are whole")
    raise unknown_id(run_id, layout)


def change_run(layout: Layout, run_id: str, decide: Callable[[RunFile | None], RunFile]) -> RunFile:
    """Write a run's file anew, given what stands there now, while no other process changes it. Return the new one.

    Raises:
        StorageError: there is no space left, or the folder cannot be written.
        ArtifactError: the file that is there is damaged.
    """
    folder = layout.run(run_id)
    with storing(layout.root):
        folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        run = decide(read_run_file(layout, run_id) if layout.run_file(run_id).exists() else None)
        save_run(layout, run)
    return run


def keep_run(layout: Layout, run_id: str) -> None:
    """Note that somebody asked for the run's report, so that the run stays where old ones are removed.

    Raises:
        StorageError: the run's file cannot be written.
        ArtifactError: it is damaged.
    """
    asked = read_run_file(layout, run_id)
    if asked.has_own_report:
        change_run(layout, run_id, lambda run: replace(run or asked, has_own_report=False))


def keep_fetched(layout: Layout, run: RunFile) -> None:
    """Write the file of a run that workers of a farm have measured, which this results folder keeps; what is there stays noted.

    Raises:
        StorageError, ArtifactError: as `change_run`.
    """

    def kept(here: RunFile | None) -> RunFile:
        whole = joined(here or run, run)
        others = {address: why for address, why in whole.left_out.items() if address not in run.addresses}
        return replace(whole, left_out=others | run.left_out, is_ended=run.is_ended, is_part=False)

    change_run(layout, run.run_id, kept)


def joined(begun: RunFile, now: RunFile) -> RunFile:
    """Return the file of a run that goes on, with devices that it did not have; what was pushed first stays noted."""
    others = {device.profile: now.bundle for device in now.devices if now.bundle != begun.bundle} | now.others
    return replace(
        begun,
        others=begun.others | others,
        deployments=_with_new(begun.deployments, now.deployments, lambda one: one.device.address),
        devices=_with_new(begun.devices, now.devices, lambda one: one.address),
        hosted=_with_new(begun.hosted, now.hosted, lambda one: one),
        contents=now.contents | begun.contents,
        retries=tuple(dict.fromkeys((*begun.retries, *now.retries))),
        left_out=now.left_out | begun.left_out,
        is_ended=False,
    )


def part_on(run: RunFile, address: str) -> RunFile:
    """Return the file of a run without what it says of other devices of the same host, each of which has a part of its own."""
    return replace(
        run,
        devices=tuple(device for device in run.devices if device.address == address),
        deployments=tuple(one for one in run.deployments if one.device.address == address),
        retries=tuple(retry for retry in run.retries if retry.address == address),
        left_out={name: why for name, why in run.left_out.items() if name == address},
    )


def whole_of(parts: Sequence[RunFile]) -> RunFile:
    """Return the file of a run whose devices were measured apart, each a part; it has ended where none left anything out."""
    whole = reduce(joined, parts)
    return replace(whole, is_ended=not whole.left_out)


def _with_new(there: tuple[ItemT, ...], more: tuple[ItemT, ...], key: Callable[[ItemT], str]) -> tuple[ItemT, ...]:
    return tuple({key(item): item for item in (*more, *there)}.values())
