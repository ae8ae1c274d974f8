"""Stored runs: reading launch records with run.json and quality.json, finding runs by id, and updating run.json."""

import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import TypeVar

from quadbench.artifacts import SCHEMA_VERSION, Bundle, Deployment, DeviceFacts, RunResult, Status, StoredBundle, Variant
from quadbench.artifacts.run_record import Retry, RunRecord, RunScores, file_refs
from quadbench.artifacts.safe_text import FileName, can_name_file
from quadbench.errors import ArtifactError, StorageError, UnknownNameError, UserError
from quadbench.host import folder_lock
from quadbench.recipe import Measure, RunSettings, Runtime
from quadbench.recipe.recipe import Baseline
from quadbench.results.digests import content_digest
from quadbench.results.disk import storage_errors, write_atomic
from quadbench.results.documents import document_from, read_document, write_document
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, read_manifest
from quadbench.results.records import Guard, RecordStore, read_records
from quadbench.statistics import LAUNCHES_PER_BLOCK

_LOOKED_AT = 100  # runs searched for one that was not interrupted
RUN, SWEEP, COMPARISON, NIGHT = "run", "sweep", "comparison", "night"
_LISTED = 8  # of the latest ids
_FOLDER_HINT = "list this folder's runs with quadbench runs, or choose another folder with --results"
ItemT = TypeVar("ItemT")

log = logging.getLogger(__name__)
MAX_LAUNCHES = 1000  # launches of a variant in a run; launch n + 1000 repeats launch n, and n + 2000 repeats it again


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """The content of run.json, which is written when a run begins and again when it ends.

    `bundle` is the bundle's folder name below `bundles`; `others` maps each device profile that uses another bundle to that
    bundle's folder name. `planned` is the number of launches per variant on a device; it is empty for runs of a comparison.
    `recipe` is the recipe's text, and `swept` has the values that a sweep set in it. The settings, the `devices`, and the
    addresses `hosted` at AI Hub are stored for resuming. `contents` has the digest of each bundle's files. `has_own_report`:
    no user requested the report, so the run and its report may be removed. `is_part`: a farm's host measured the run for
    another results folder, which keeps it. `retries` are devices that were lost and came back; `left_out` maps an address to
    the reason of missing launches.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: FileName
    bundle: FileName
    others: dict[str, FileName] = field(default_factory=dict)
    deployments: tuple[Deployment, ...]
    published: str | None = None
    planned: dict[Variant, int] = field(default_factory=dict)
    is_ended: bool = False
    recipe: str | None = None
    swept: dict[str, str] = field(default_factory=dict)
    measure: Measure = field(default_factory=Measure)
    runtime: Runtime = field(default_factory=Runtime)
    baselines: tuple[Baseline, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    hosted: tuple[str, ...] = ()
    contents: dict[FileName, str] = field(default_factory=dict)
    has_own_report: bool = False
    is_part: bool = False
    retries: tuple[Retry, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def terms(self) -> RunSettings:
        return document_from(RunSettings, self, text=self.recipe)

    @property
    def addresses(self) -> tuple[str, ...]:
        return (*(device.address for device in self.devices), *self.hosted)

    def missing_launches(self, stored: Mapping[str, int]) -> list[str]:
        """Return addresses with fewer launches than planned, unless in `left_out`. `stored` maps address to launch count."""
        planned = sum(self.planned.values())
        addresses = [device.address for device in self.devices if device.address not in self.left_out]
        return [address for address in addresses if stored.get(address, 0) < planned]


def new_id() -> str:
    """Return an id for a run or sweep that begins now; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"


def new_run_file(
    run_id: str,
    bundles: Mapping[str, StoredBundle],
    terms: RunSettings,
    *,
    deployments: tuple[Deployment, ...],
    planned: Mapping[Variant, int],
    devices: tuple[DeviceFacts, ...] = (),
    hosted: tuple[str, ...] = (),
    is_part: bool = False,
) -> RunFile:
    """Return the RunFile (content of run.json) of a new run. `bundles` maps device profile name to the bundle to measure."""
    first, *_ = folders = {profile: bundle.folder.name for profile, bundle in bundles.items()}
    others = {profile: folder for profile, folder in folders.items() if folder != folders[first]}
    return RunFile(
        run_id=run_id,
        bundle=folders[first],
        others=others,
        deployments=deployments,
        published=terms.published,
        planned=dict(planned),
        recipe=terms.text,
        swept=terms.swept,
        measure=terms.measure,
        runtime=terms.runtime,
        baselines=terms.baselines,
        devices=devices,
        hosted=hosted,
        contents={bundle.folder.name: content_digest(bundle.artifact) for bundle in bundles.values()},
        has_own_report=True,
        is_part=is_part,
    )


def save_run(layout: Layout, run: RunFile) -> None:
    write_document(layout.run_file(run.run_id), run)


def save_scores(layout: Layout, run_id: str, scores: RunScores) -> None:
    """Write a run's image scores to quality.json atomically, replacing earlier scores."""
    write_document(layout.scores(run_id), scores)


def load_run(layout: Layout, run_id: str | None = None) -> RunResult:
    """Read a stored run with its launch records, bundles and scores. Without an id, read the latest run that was not
    interrupted. If all were interrupted, read the latest of them.

    Raises:
        UnknownNameError: there is no such run.
        ArtifactError: there is no run at all, or its file, its bundle or the bundle's images are damaged.
    """
    run, stored = _stored(layout, run_id)
    bundles = {name: _bundle(layout, name) for name in (run.bundle, *run.others.values())}
    scores, hint = layout.scores(run.run_id), "remove it, or run quadbench quality again"
    return document_from(
        RunResult,
        run,
        stored=bundles[run.bundle],
        others={profile: bundles[name] for profile, name in run.others.items()},
        records=count_blocks(stored),
        scores=read_document(scores, RunScores, hint=hint) if scores.exists() else None,
        is_cut_short=not run.is_ended or _lacks_launches(run, stored),
    )


def load_records(layout: Layout, run_id: str | None = None) -> tuple[RunRecord, ...]:
    """Return a tuple of a run's launch records. Without an id, take the results folder's latest run that was not interrupted, or
    the latest run if all were. With an id, the run may be from any host that uses the same database.

    Raises:
        UnknownNameError: there is no such run.
        ArtifactError: there is no run at all, or the database is damaged.
    """
    if run_id is None:
        _, stored = _stored(layout, None)
    else:
        with read_records(database_of(layout)) as records:
            stored = records.run_records(run_id)
    return count_blocks(stored)


def run_ids(layout: Layout, limit: int | None) -> list[str]:
    """Return the ids of the latest `limit` stored runs, latest first; of all runs if `limit` is None.

    Raises:
        ArtifactError: the database is damaged.
    """
    source = database_of(layout)
    if isinstance(source, Path) and not os.path.lexists(source):
        return []
    with read_records(source) as records:
        return list(islice(_own_ids(records, source, layout), limit))


def _own_ids(records: RecordStore, source: str | Path, layout: Layout) -> Iterator[str]:
    """Yield the ids of this results folder's runs, latest first; other folders' runs in a shared database are omitted."""
    ids = records.run_ids(limit=None)
    yield from ids if isinstance(source, Path) else (name for name in ids if layout.run(name).exists())


def _bundle(layout: Layout, name: str) -> StoredBundle:
    bundle = read_manifest(layout.bundles / name, Bundle)
    check_contents(bundle, file_refs(tuple(task.items for task in bundle.artifact.tasks)))
    return bundle


def store_record(records: RecordStore, record: RunRecord, layout: Layout, guard: Guard | None = None) -> None:
    """Store the record of an ended launch in the database. Convert the launch's start and end times to the database's clock.

    A record that the database refuses is written to a file beside the launch's events. One that `guard` refuses is not stored.

    Raises:
        StorageError, ArtifactError: the database refused the record; the message names the file with it.
    """
    try:
        records.store(records.in_database_time(record), guard)
    except ArtifactError as error:
        path = layout.launch(record.run_id, record.device.address, record.variant, record.launch) / "record.json"
        try:
            write_atomic(path, json.dumps(asdict(record), indent=1, default=str))
        except StorageError as second:
            log.warning("the record of %s could not be written either: %s", path.parent, second)
            where = f"only the launch's files in '{path.parent}' are kept"
        else:
            where = f"the launch's record is kept in '{path}'"
        raise type(error)(f"{error.message}; {where}", hint=error.hint) from error


def _stored(layout: Layout, run_id: str | None) -> tuple[RunFile, tuple[RunRecord, ...]]:
    """Return a run's `(run.json content, launch records)`. Without an id, take the latest uninterrupted run, else the latest."""
    nothing = ArtifactError(f"'{layout.root}' has no runs yet", hint=f"create one: {layout.command('run', 'quickstart')}")
    source = database_of(layout)
    if isinstance(source, Path) and not os.path.lexists(source):
        raise nothing
    with read_records(source) as records:
        if run_id is not None:
            stored = records.run_records(run_id)
            return read_run_file(layout, run_id), stored
        cut_short: tuple[RunFile, tuple[RunRecord, ...]] | None = None
        fault: ArtifactError | None = None
        for name in islice(_own_ids(records, source, layout), _LOOKED_AT):
            try:
                run = read_run_file(layout, name)
            except ArtifactError as error:
                log.warning("run %s is skipped: %s", name, error)
                fault = fault or error
                continue
            stored = records.run_records(name)
            is_aborted = any(one.status is Status.ABORTED for one in stored) and any(
                one.status is Status.ABORTED
                for one in count_blocks(stored)  # and not repeated since
            )
            if run.is_ended and not is_aborted and not _lacks_launches(run, stored):
                return run, stored
            cut_short = cut_short or (run, stored)
        if not cut_short:
            raise fault or nothing
        log.warning("all latest runs were interrupted; run %s is used", cut_short[0].run_id)
        return cut_short


def _lacks_launches(run: RunFile, stored: tuple[RunRecord, ...]) -> bool:
    return bool(run.missing_launches(Counter(record.device.address for record in stored)))


def read_run_file(layout: Layout, run_id: str) -> RunFile:
    """Read the run.json of a run. The run need not have launch records yet.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    hint = "restore the file from a backup: the run's report needs it; the run's records are intact"
    return read_document(layout.run_file(run_id), RunFile, hint=hint)


def find_run(layout: Layout, run_id: str | None, *wanted: str) -> RunResult:
    """Return a stored run as RunResult. The error for an unknown id names the kinds of id in `wanted`, such as run or sweep.

    Raises:
        UserError: there is no run with this id.
        ArtifactError: there is no run at all, or the run is damaged.
    """
    try:
        return load_run(layout, run_id)
    except UnknownNameError as error:
        if can_name_file(error.name) and layout.run(error.name).exists():
            reason = f"run {error.name} has a folder, '{layout.run(error.name)}', but no records in the database"
            hint = "check $QUADBENCH_DATABASE: the records may be in another database, removed, or not measured yet"
            raise ArtifactError(reason, hint=hint) from error
        raise unknown_id_error(error.name, layout, *wanted) from error


def is_run(word: str, layout: Layout) -> bool:
    """Return whether the results folder has a run with this id."""
    try:
        return layout.run_file(word).exists()
    except ValueError:  # invalid as a run's name
        return False


def unknown_id_error(word: str, layout: Layout, *wanted: str) -> UserError:
    """Return the error for an id that is unknown or of a wrong kind. `wanted` lists the accepted kinds, such as run or sweep."""
    kinds, (*others, last) = stored_ids(layout), wanted or (RUN,)
    expected = f"{', '.join(others)} or {last}" if others else last
    if (kind := kinds.get(word)) and kind not in (*others, last):
        hint = "show what nights found: quadbench history" if kind == NIGHT else f"show it: {layout.command('show', word)}"
        return UserError(f"'{word}' is a {kind}; expected a {expected}", hint=hint)
    known = {name: kind for name, kind in kinds.items() if kind in (*others, last)}
    return UnknownNameError(expected, word, known, labels=known if others else {}, most=_LISTED, hint=_FOLDER_HINT)


def stored_ids(layout: Layout) -> dict[str, str]:
    """Return a dict from each id in a results folder to what the id names: `run`, `sweep`, `comparison` or `night`."""
    studies = {path.parent.name: path.stem for path in layout.studies()}  # sweep.json, comparison.json
    return dict.fromkeys(layout.night_ids(), NIGHT) | studies | dict.fromkeys(run_ids(layout, None), RUN)


def load_run_file(layout: Layout, run_id: str) -> RunFile:
    """Read a run's run.json, even if no launch is recorded yet. For an unknown id, raise an error that lists existing runs.

    Raises:
        UserError: this results folder has no such run.
        ArtifactError: the file is damaged or missing.
    """
    if can_name_file(run_id) and layout.run_file(run_id).exists():
        return read_run_file(layout, run_id)
    if stored_ids(layout).get(run_id) == RUN:
        reason = f"run {run_id} cannot be resumed: '{layout.run_file(run_id)}' is missing"
        raise ArtifactError(reason, hint="restore the file from a backup; the run's records are intact")
    raise unknown_id_error(run_id, layout)


def change_run(layout: Layout, run_id: str, decide: Callable[[RunFile | None], RunFile]) -> RunFile:
    """Rewrite run.json under a lock and return the new content. `decide` turns the old content (None if absent) into the new.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
        ArtifactError: the existing file is damaged.
    """
    folder = layout.run(run_id)
    with storage_errors(layout.root):
        folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        run = decide(read_run_file(layout, run_id) if layout.run_file(run_id).exists() else None)
        save_run(layout, run)
    return run


def keep_run(layout: Layout, run_id: str) -> None:
    """Record in run.json that a user requested the run's report, so that the cleanup of old runs keeps the run.

    Raises:
        StorageError: the run's file cannot be written.
        ArtifactError: the run's file is damaged.
    """
    asked = read_run_file(layout, run_id)
    if asked.has_own_report:
        change_run(layout, run_id, lambda run: replace(run or asked, has_own_report=False))


def store_fetched(layout: Layout, run: RunFile) -> None:
    """Merge a RunFile fetched from a farm into run.json, or create the file. Clear `is_part`, which marks a host's copy.

    Raises:
        StorageError, ArtifactError: as for `change_run`.
    """

    def kept(here: RunFile | None) -> RunFile:
        whole = join_run_files(here or run, run)
        others = {address: why for address, why in whole.left_out.items() if address not in run.addresses}
        return replace(whole, left_out=others | run.left_out, is_ended=run.is_ended, is_part=False)

    change_run(layout, run.run_id, kept)


def join_run_files(run_file: RunFile, now: RunFile) -> RunFile:
    """Return a run's stored RunFile with devices added from `now`, the resumed run's RunFile. Stored devices are not replaced."""
    others = {device.profile: now.bundle for device in now.devices if now.bundle != run_file.bundle} | now.others
    return replace(
        run_file,
        others=run_file.others | others,
        deployments=_merged(run_file.deployments, now.deployments, lambda one: one.device.address),
        devices=_merged(run_file.devices, now.devices, lambda one: one.address),
        hosted=_merged(run_file.hosted, now.hosted, lambda one: one),
        contents=now.contents | run_file.contents,
        retries=tuple(dict.fromkeys((*run_file.retries, *now.retries))),
        left_out=now.left_out | run_file.left_out,
        is_ended=False,
    )


def part_for(run: RunFile, address: str) -> RunFile:
    """Return a copy of a RunFile. Of its devices, deployments, retries and `left_out`, keep only the entries for `address`."""
    return replace(
        run,
        devices=tuple(device for device in run.devices if device.address == address),
        deployments=tuple(one for one in run.deployments if one.device.address == address),
        retries=tuple(retry for retry in run.retries if retry.address == address),
        left_out={name: why for name, why in run.left_out.items() if name == address},
    )


def merge_parts(parts: Sequence[RunFile]) -> RunFile:
    """Return one run's RunFile, merged from RunFiles for different devices. `is_ended` is True unless a device lacks launches."""
    whole = reduce(join_run_files, parts)
    return replace(whole, is_ended=not whole.left_out)


def _merged(there: tuple[ItemT, ...], more: tuple[ItemT, ...], key: Callable[[ItemT], str]) -> tuple[ItemT, ...]:
    return tuple({key(item): item for item in (*more, *there)}.values())


def count_blocks(stored: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return all launch records. Mark blocks that were run again DISCARDED, and OK launches whose block has a discarded one."""
    return _without_repeated_blocks(_without_discarded_blocks(stored))


def _without_repeated_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return all launch records. If a block was run again, mark all its records DISCARDED except those of the last repetition."""
    if all(record.launch < MAX_LAUNCHES for record in records):
        return records
    latest: dict[tuple[str, str, Variant, int], int] = {}
    for record in records:
        latest[_origin(record)] = max(record.launch // MAX_LAUNCHES, latest.get(_origin(record), 0))

    def superseded(record: RunRecord) -> RunRecord:
        times = latest[_origin(record)]
        if record.launch // MAX_LAUNCHES == times or record.status is Status.DISCARDED:
            return record
        number = record.launch % MAX_LAUNCHES + times * MAX_LAUNCHES
        again = f"its block was interrupted and repeated; launch {number} repeats this launch"
        return replace(record, status=Status.DISCARDED, reason=f"{record.reason}; {again}" if record.reason else again)

    return tuple(map(superseded, records))


def _origin(record: RunRecord) -> tuple[str, str, Variant, int]:
    """Return the tuple (device address, serial, variant, block number) of a launch. All repetitions of a block share a number."""
    block = record.launch % MAX_LAUNCHES // LAUNCHES_PER_BLOCK
    return record.device.address, record.device.serial, record.variant, block


def _without_discarded_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return all launch records. If a launch is DISCARDED, mark all OK launches of its block DISCARDED, except FLOAT launches."""
    discarded = {_block(record): record for record in records if record.status is Status.DISCARDED}
    if not discarded:
        return records

    def with_block(record: RunRecord) -> RunRecord:
        cause = discarded.get(_block(record))
        if cause is None or record.status is not Status.OK or record.variant is Variant.FLOAT:
            return record
        reason = f"discarded with its block, because launch {cause.launch} of {cause.variant} was discarded"
        return replace(record, status=Status.DISCARDED, error_class=cause.error_class, reason=reason)

    return tuple(map(with_block, records))


def _block(record: RunRecord) -> tuple[str, str, int]:
    return record.device.address, record.device.serial, record.launch // LAUNCHES_PER_BLOCK
