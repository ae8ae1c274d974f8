"""The queries by which web pages read the results folder and its database. Answers are cached up to 60 s for all viewers."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from typing import Generic, TypeVar

import sqlalchemy as sa

from quadbench.artifacts import MIB
from quadbench.artifacts.pixels import png_size
from quadbench.artifacts.safe_text import check_file_name
from quadbench.devices.lab.farm_file import expected_phones
from quadbench.errors import ArtifactError, QuadbenchError, TooLargeError, UnknownNameError, UserError
from quadbench.farm.condor import Condor, this_pool
from quadbench.farm.slots import Slot, read_slots
from quadbench.nightly.history_formats import CaseLine, HistoryView, case_lines, history_view, read_cases
from quadbench.nightly.night_report import NightResult
from quadbench.report.html import render_study, render_view
from quadbench.report.night import NightView
from quadbench.report.night_formats import render_night
from quadbench.report.run_line import RunLine, RunList, RunStatus, StudyLine
from quadbench.report.scores import Picture, difference_png
from quadbench.report.versus import PRIMARY
from quadbench.report.view import ReportView, report_view
from quadbench.results.engine import Source, database_of, has_tables, open_for_reading
from quadbench.results.layout import Layout
from quadbench.results.nights import NightHead, NightStore, night_heads
from quadbench.results.progress import Progress, active_work
from quadbench.results.records import RunHead, run_head, run_heads
from quadbench.results.stored_runs import load_run, read_run_file
from quadbench.serve.farm_state import FarmNow, farm_without_notes, read_farm
from quadbench.spec import read_file
from quadbench.spec.files import MAX_BYTES, require_inside
from quadbench.study.stored_studies import find_study, read_study, study_lines

A_PAGE = 25
MAX_PAGES = 4000
_LINE_NIGHTS = 40  # per case, to find since when its level is stable
_MAX_NIGHTS = 1000  # per case, in its history
_MAX_DEVICES = 20  # per case
_MAX_PICTURE_BYTES = 16 * 2**20
_POOL_PATIENCE_S = 2.0
T = TypeVar("T")
KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")

log = logging.getLogger(__name__)


class AnswerCache(Generic[KeyT, ValueT]):
    """A cache of query results by key, limited in number and age. One query runs at a time; other callers wait."""

    def __init__(self, ask: Callable[[KeyT], ValueT], *, age_s: float, most: int) -> None:
        self._ask, self._age_s, self._most = ask, age_s, most
        self._known: OrderedDict[KeyT, tuple[float, ValueT]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: KeyT) -> ValueT:
        """Return a key's query result: cached if younger than `age_s` seconds, else newly queried. Exceptions are not cached."""
        with self._lock:
            known = self._known.get(key)
            if known is None or time.monotonic() - known[0] >= self._age_s:
                value = self._ask(key)
                known = (time.monotonic(), value)  # age counts from the end of the query, so a slow one is not repeated at once
                self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return known[1]


@dataclass(frozen=True, kw_only=True)
class PoolState:
    """The slots that a pool had at `read_at`, its last answer, or none if it never answered. `fault` is set if it fails now."""

    slots: tuple[Slot, ...] = ()
    read_at: datetime | None = None
    fault: str | None = None

    @property
    def as_failed(self) -> "PoolState":
        """Return a copy for a pool that does not answer now."""
        then = f"; its hosts are shown as they were at {self.read_at:%H:%M:%S} UTC" if self.read_at else ""
        return replace(self, fault=f"The pool does not answer{then}. See the log of quadbench serve.")


class SlotWatch:
    """The state of a pool. A thread of its own reads it, because a pool that hangs does so for up to a minute."""

    def __init__(self, pool: Callable[[], Condor], patience_s: float = _POOL_PATIENCE_S) -> None:
        self._pool, self._patience_s = pool, patience_s
        self._known = PoolState()
        self._reader: threading.Thread | None = None
        self._began = 0.0
        self._said = ""
        self._lock = threading.Lock()

    def __call__(self) -> PoolState:
        """Return the pool's state, newly read. If that takes longer than `patience_s`, return the state of the last answer."""
        with self._lock:
            if self._reader is None or not self._reader.is_alive():
                self._reader = threading.Thread(target=self._read, name="quadbench-pool", daemon=True)
                self._began = time.monotonic()
                self._reader.start()
            self._reader.join(max(0.0, self._began + self._patience_s - time.monotonic()))
            return self._known.as_failed if self._reader.is_alive() else self._known

    def _read(self) -> None:
        state = self._known.as_failed
        try:
            state = self._answer()
            self._said = ""
        except QuadbenchError as error:
            if str(error) != self._said:
                log.warning("the pool's slots are not known: %s", error)
            self._said = str(error)
        finally:
            self._known = state

    def _answer(self) -> PoolState:
        try:
            pool = self._pool()
        except UserError:  # this user has no pool
            return PoolState()
        return PoolState(slots=tuple(read_slots(pool)), read_at=datetime.now(UTC))


def picture_bytes(view: ReportView, number: int, layout: Layout) -> bytes:
    """Return image `number` (from 0) of a report as PNG bytes. If it has a reference image, return the images' difference."""
    picture = next((picture for n, picture in enumerate(_shown(view)) if n == number), None)
    path = picture.path if picture else None
    if picture is None or path is None or not path.is_file():
        raise UnknownNameError("picture", str(number))
    _require_own(picture, layout)
    try:
        if picture.apart_from:
            return difference_png(path, picture.apart_from)
        content = read_file(path, fault=ArtifactError, max_bytes=_MAX_PICTURE_BYTES)
        png_size(content)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' is not a picture: {error}") from error
    return content


def _require_own(picture: Picture, layout: Layout) -> None:
    """Raise ArtifactError if an image or its reference image is outside the results folder, with symbolic links resolved."""
    for path in filter(None, (picture.path, picture.apart_from)):
        require_inside(path, layout.root, fault=ArtifactError)


def _shown(view: ReportView) -> Iterator[Picture]:
    for task in view.pictures:
        for item in (*task.shown, *task.folded):
            yield from item.pictures


class ResultsQueries:
    """The queries that web pages run on one results folder, its database and the pool. Read errors propagate to the caller."""

    def __init__(self, layout: Layout, pool: Callable[[], Condor] = this_pool) -> None:
        self._pool = SlotWatch(pool)
        self.layout = layout = replace(layout, display_root=layout.root.absolute().name)  # pages do not reveal the folder's path
        self._is_empty = _single_answer(lambda: _is_empty(database_of(layout)), age_s=2)
        self.work: Callable[[], list[Progress]] = _single_answer(lambda: active_work(layout), age_s=1)
        self.farm: Callable[[], FarmNow] = _single_answer(self._farm, age_s=5)
        self._known_runs = AnswerCache(self._runs, age_s=10, most=20)
        self._known_heads = AnswerCache(self._head, age_s=10, most=20)
        self.view = AnswerCache[str, ReportView](
            lambda run_id: report_view(load_run(layout, _name("run", run_id)), layout), age_s=30, most=4
        )
        self.nights = AnswerCache(self._nights, age_s=10, most=20)
        self.night = AnswerCache(self._night, age_s=30, most=8)
        self.cases = AnswerCache(self._cases, age_s=60, most=20)
        self.case = AnswerCache(self._case, age_s=60, most=8)
        self.report = AnswerCache(self._report, age_s=30, most=2)
        self.studies: Callable[[], tuple[StudyLine, ...]] = _single_answer(self._studies, age_s=30)
        self.study_report = AnswerCache(self._study_report, age_s=30, most=2)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was measured in the results folder yet: the database has no tables."""
        return self._is_empty()

    def runs(self, page: int) -> RunList:
        """Return page `page` (from 0) of the stored runs, newest first, 25 a page. Only page 0 lists sweeps and comparisons."""
        return self._known_runs((page, self.at_work()))

    def head(self, run_id: str) -> RunLine | None:
        """Return a run's entry for the list of runs. Return None if the database has no launch record of the run."""
        return self._known_heads((run_id, self.at_work()))

    def is_here(self, run_id: str) -> bool:
        """Return whether the results folder has the run.json file of a run. If False, the run's files may be on another host."""
        return self.layout.run_file(_name("run", run_id)).exists()

    def written_report(self, run_id: str) -> bytes | None:
        """Return the stored HTML report of a run, in which the results folder's path is its name. Return None without one."""
        path = self.layout.report(_name("run", run_id))
        if not path.is_file():
            return None
        require_inside(path, self.layout.root, fault=ArtifactError)
        if (size_bytes := path.stat().st_size) > MAX_BYTES:
            place, most = path.relative_to(self.layout.root), MAX_BYTES // MIB
            raise TooLargeError(f"'{place}' in the results folder has {size_bytes / MIB:.1f} MB; at most {most} MB are shown")
        folder = self.layout.root.absolute()
        content = read_file(path, fault=ArtifactError)
        return content.replace(escape(str(folder)).encode(), escape(folder.name).encode())

    def night_report(self, night_id: str) -> bytes:
        commands = {"Run the night file again": self.layout.command("nightly", "run", "FILE")}
        return render_night(self.night(night_id), commands).encode()

    def _farm(self) -> FarmNow:
        if self.is_empty:
            return farm_without_notes(expected_phones())
        with self._database() as engine:
            pool = self._pool()
            farm = read_farm(engine, expected_phones(), pool.slots)
        return replace(farm, faults=(pool.fault,)) if pool.fault else farm

    def at_work(self) -> frozenset[str]:
        """Return the set of ids of runs in progress on this host or the phone farm. Caches of runs use the set in their keys."""
        here = {work.run_id for work in self.work() if work.run_id}
        try:
            return frozenset((*here, *(run.run_id for run in self.farm().runs)))
        except QuadbenchError:  # reported on the farm's pages
            return frozenset(here)

    def _runs(self, key: tuple[int, frozenset[str]]) -> RunList:
        page, at_work = key
        if self.is_empty:
            return RunList(runs=(), studies=() if page else self.studies())
        with self._database() as engine:
            heads = run_heads(engine, A_PAGE, skip=page * A_PAGE)
        return RunList(runs=tuple(self._line(head, at_work) for head in heads), studies=() if page else self.studies())

    def _head(self, key: tuple[str, frozenset[str]]) -> RunLine | None:
        run_id, at_work = key
        if self.is_empty:
            return None
        with self._database() as engine:
            head = run_head(engine, _name("run", run_id))
        return None if head is None else self._line(head, at_work)

    def _line(self, head: RunHead, at_work: frozenset[str]) -> RunLine:
        """Return a run's entry for the list of runs. Omit image times and PSNR, as they require reading all measured values."""
        launches = f"{head.wrong} of {head.count} launches failed" if head.wrong else None
        try:
            run = read_run_file(self.layout, head.run_id) if self.layout.run_file(head.run_id).exists() else None
        except ArtifactError:
            return RunLine(run_id=head.run_id, status=RunStatus.DAMAGED, reason="run.json cannot be read")
        stored = {address: sum(states.values()) for address, states in head.launches.items()}
        is_cut_short = run is not None and (not run.is_ended or bool(run.missing_launches(stored)))
        is_at_work = head.run_id in at_work
        ended = RunStatus.CUT_SHORT if is_cut_short else RunStatus.FAILED if head.wrong else RunStatus.OK
        return RunLine(
            run_id=head.run_id,
            status=RunStatus.UNDER_WAY if is_at_work else ended,
            started_at=head.began_at,
            recipe=head.recipe,
            swept=run.swept if run else {},
            devices=tuple(head.launches),
            reason=launches,
        )

    def _report(self, run_id: str) -> bytes:
        view = self.view(run_id)
        for picture in _shown(view):
            _require_own(picture, self.layout)
        return render_view(view).encode()

    def _studies(self) -> tuple[StudyLine, ...]:
        """Return a tuple of the 25 latest sweeps and comparisons. For unreadable files, `reason` is a fixed text without path."""
        lines = study_lines(self.layout, A_PAGE)
        return tuple(replace(line, reason="its file cannot be read") if line.reason else line for line in lines)

    def _study_report(self, study_id: str) -> bytes:
        path = find_study(self.layout, study_id)
        if path is None:
            raise UnknownNameError("sweep or comparison", study_id)
        return render_study(read_study(path), self.layout.root_arguments).encode()

    def _nights(self, page: int) -> list[NightHead]:
        if self.is_empty:
            return []
        with self._database() as engine:
            return night_heads(engine, A_PAGE, skip=page * A_PAGE)

    def _night(self, night_id: str) -> NightView:
        with self._database() as engine:
            nights = NightStore(engine)
            return NightResult.from_night(nights.night(_name("night", night_id)), nights).view(self.layout.root_arguments)

    def _cases(self, page: int) -> tuple[CaseLine, ...]:
        if self.is_empty:
            return ()
        with self._database() as engine:
            nights = NightStore(engine)
            places = nights.cases()[page * A_PAGE : (page + 1) * A_PAGE]
            series = [one for place in places if (one := nights.series(*place, latest=_LINE_NIGHTS, key=PRIMARY))]
            return case_lines(nights, series)

    def _case(self, case: str) -> HistoryView:
        with self._database() as engine:
            nights = NightStore(engine)
            devices = [device for name, device in nights.cases() if name == case][:_MAX_DEVICES]
            series = [one for device in devices if (one := nights.series(case, device, latest=_MAX_NIGHTS))]
            histories = read_cases(nights, series, is_whole=False)
            if not histories:
                raise UnknownNameError("case", case, sorted({name for name, _ in nights.cases()})[:A_PAGE])
        return history_view(histories, datetime.now(UTC))

    @contextmanager
    def _database(self) -> Iterator[sa.Engine]:
        """Yield a read-only engine of the results database for a `with` block. Raise UserError if the database has no tables."""
        if self.is_empty:
            raise UserError("nothing was measured here yet", hint="start with quadbench run quickstart")
        engine = open_for_reading(database_of(self.layout))
        try:
            yield engine
        finally:
            engine.dispose()


def _single_answer(ask: Callable[[], T], *, age_s: float) -> Callable[[], T]:
    """Return a function without arguments that returns the result of `ask()`, and caches the result for `age_s` seconds."""
    remembered = AnswerCache[None, T](lambda _: ask(), age_s=age_s, most=1)
    return lambda: remembered(None)


def _is_empty(source: Source) -> bool:
    """Return True if a database has no tables yet, False if it has tables or cannot be read."""
    try:
        return not has_tables(source)
    except QuadbenchError:
        return False


def _name(kind: str, text: str) -> str:
    try:
        return check_file_name(text)
    except ValueError as error:
        raise UnknownNameError(kind, text) from error
