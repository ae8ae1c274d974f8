"""Terminal output: live progress lines on stderr; text, tables and JSON on stdout."""

import argparse
import contextlib
import json
import logging
import math
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime, timedelta
from io import TextIOWrapper
from math import ceil
from types import TracebackType
from typing import Any, Self, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from quadbench.artifacts import MIB, Bundle, Deployment, LaunchPlan, RunRecord, Status, Variant
from quadbench.artifacts.safe_text import one_line, printable
from quadbench.errors import StorageError
from quadbench.report.formatting import TextTable

WORST_SITES = 5  # shown of each adapter
_FILE_WIDTH = 200  # wider than any table
_TERMINAL_WIDTH, _MIN_WIDTH, _MAX_WIDTH = 80, 20, 10_000
READ_WIDTH = 100  # limit on wider terminals, for readability
_MAX_CHARACTERS = 20_000  # limit for an error message

RUN_STAGES = ("build", "harness", "compile", "push", "measure")
_PARTS_OF = {"bundle": "build", "compiled": "compile"}  # events named otherwise than their stage, by their first word

_BAR_CELLS = 10
_PER_SECOND = 4


def stdout_console() -> Console:
    """Return the console that prints results to stdout: at most 100 columns on a terminal, unlimited in a file or pipe.

    The variable COLUMNS overrides the width, unless its value is too small for any table.
    """
    from quadbench.spec import variable

    console = _ResultsConsole(markup=False, emoji=False)
    columns = variable("COLUMNS") or ""
    if columns.isdecimal() and _MIN_WIDTH <= int(columns) <= _MAX_WIDTH:
        return console
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    else:
        console.width = _TERMINAL_WIDTH if columns else min(console.width, READ_WIDTH)
    return console


class _ResultsConsole(Console):
    """A console that prints all text literally, without interpreting markup, and removes terminal control codes."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class RunConsole:
    """An observer that prints a run's progress on stderr, with a live line for each device.

    With `stages`, the stages of the command, each line is prefixed with its number among them.
    """

    def __init__(self, console: Console | None = None, stages: Sequence[str] = ()) -> None:
        self._console = console = console or Console(stderr=True)
        self._stages = tuple(stages)
        self._launches: dict[str, _LaunchProgress] = {}  # by device
        self._lock = threading.Lock()
        self._lines = LiveDisplay(console)
        self._last_stage = ""

    def __enter__(self) -> Self:
        self._lines.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lines.__exit__(kind, error, trace)

    def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
        """Update the live line of a stage such as build. Print a permanent line when a stage, or one run of a sweep, begins."""
        with self._lock:
            if stage != self._last_stage or stage == "sweep":
                self._last_stage = stage
                self._say(stage, f" {detail}" if stage == "sweep" else "")
            self._lines.drop(lambda name, _: name != stage)
            self._lines.set(stage, "", detail, share)

    def bundle_built(self, bundle: Bundle) -> None:
        peak = f", {bundle.build_peak_bytes / 1e9:.1f} GB of memory at most" if bundle.build_peak_bytes else ""
        with self._lock:
            seconds = sum(bundle.build_seconds.values())
            self._say("build", f" took {seconds:.0f} s{peak}")

    def artifact_reused(self, stage: str, digest: str) -> None:
        with self._lock:
            self._say(stage, f" unchanged, reused ({digest[:12]})")

    def bytes_sent(self, device: str, sent_bytes: int, total_bytes: int) -> None:
        with self._lock:
            seconds = self._lines.elapsed_s(device)
            pace = f", {sent_bytes / MIB / seconds:.1f} MB/s" if seconds > 1 else ""
            amount = f"{sent_bytes / MIB:.1f} of {total_bytes / MIB:.1f} MB{pace}"
            self._set(device, "push", amount, sent_bytes / total_bytes if total_bytes else 1.0)

    def deploy_done(self, deployment: Deployment) -> None:
        with self._lock:
            sent = f"{deployment.sent_bytes / MIB:.1f} MB sent" if deployment.sent_bytes else "0 bytes sent"
            there = f"{deployment.present_bytes / MIB:.1f} MB there already"
            device = deployment.device.address
            self._lines.drop(lambda name, _: name == device)
            if "measure" in self._stages:
                self._set(device, "waits", "for its turn", None)
            self._say("push", f" {device}: {sent}, {there}, {deployment.seconds:.1f} s")

    def launch_started(self, device: str, launch: LaunchPlan, number: int, total: int) -> None:
        with self._lock:
            under = _LaunchProgress(variant=launch.variant, side=launch.side, number=number, total=total, images=launch.images)
            self._launches[device] = under
            self._set(device, "measure", under.progress_text("", 0), under.share(0))

    def image_done(self, device: str, task: str, images: int) -> None:
        with self._lock:
            if under := self._launches.get(device):
                self._set(device, "measure", under.progress_text(task, images), under.share(images))

    def device_lost(self, device: str, reason: str, wait_s: float) -> None:
        with self._lock:
            self._say("wait", f" {device}: {reason}; waiting at most {wait_s:g} s for the device")
            self._set(device, "wait", reason, None)

    def device_back(self, device: str, away_s: float) -> None:
        with self._lock:
            self._say("wait", f" {device}: the device is back after {away_s:.1f} s")
            self._lines.drop(lambda name, _: name == device)

    def record_stored(self, record: RunRecord) -> None:
        with self._lock:
            seconds = (record.ended_at - record.started_at).total_seconds()
            colour = "green" if record.status is Status.OK else "red"
            reason = f": {record.reason}" if record.reason else ""
            device = record.device.address
            under = self._launches.get(device)
            count = f" ({under.count})" if under else ""
            if under and under.number >= under.total:
                took = timedelta(seconds=round(self._lines.elapsed_s(device)))
                self._set(device, "measured", f"{under.total} launches in {took}", 1.0)
            name = f" {device}, {record.variant} {record.launch}{count}: "
            self._say("measure", name, (record.status.value, colour), f" in {seconds:.1f} s{reason}")

    def _set(self, device: str, what: str, detail: str, share: float | None) -> None:
        self._lines.drop(lambda _, line: not line.activity)
        self._lines.set(device, what, detail, share)

    def _say(self, stage: str, *words: str | tuple[str, str]) -> None:
        """Print a line: the name of a stage, such as build, in bold, then `words`, each a text or a pair (text, colour)."""
        shown = [_line(word) if isinstance(word, str) else word for word in words]
        first = stage.split(maxsplit=1)[0]
        known = _PARTS_OF.get(first, first)
        count = f"{self._stages.index(known) + 1}/{len(self._stages)} " if known in self._stages else ""
        self._console.print(Text.assemble(count, (stage, "bold"), *shown), highlight=False)


@dataclass(frozen=True, kw_only=True)
class _LaunchProgress:
    """The launch that a device runs now: launch `number` of `total`, its variant, and the number of images."""

    variant: Variant
    side: str
    number: int
    total: int
    images: int

    @property
    def count(self) -> str:
        """Return the launch's number and the total: `3 of 8`. In a comparison of builds A and B, return `A, 3 of 8`."""
        return f"{f'{self.side}, ' if self.side else ''}{self.number} of {self.total}"

    def progress_text(self, task: str, images: int) -> str:
        """Return a launch's progress for narrow terminals: `3/8, image 2/10, TASK/VARIANT` is launch 3 of 8, image 2 of 10."""
        which = f"{task}/{self.variant}" if task else self.variant.value
        return f"{self.number}/{self.total}, image {images}/{self.images}, {which}"

    def share(self, images: int) -> float:
        """Return the finished fraction (0 to 1) of a device's launches. `images` counts the current launch's finished images."""
        return (self.number - 1 + min(images / max(1, self.images), 1.0)) / self.total


def print_error(message: str) -> None:
    """Print an error message on stderr, without interpreting markup. Cut a message longer than 20,000 characters."""
    left_out = len(message) - _MAX_CHARACTERS
    shown = f"{message[:_MAX_CHARACTERS]}... ({left_out} more characters)" if left_out > 0 else message
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), printable(shown)), soft_wrap=True, highlight=False)


def print_broken_profiles() -> None:
    """Print on stderr which device profiles are invalid, and why."""
    from quadbench.target.profile import broken_profiles

    for broken in broken_profiles():
        print_error(f"the device profile '{broken.name}' cannot be used: {broken.error}")


def print_note(message: str) -> None:
    """Print a message on stderr as plain text. Long lines are not broken, so that commands in the message can be copied."""
    Console(stderr=True).print(Text(printable(message)), soft_wrap=True, highlight=False)


def print_text(text: str) -> None:
    """Print text on stdout without interpreting markup or wrapping lines."""
    sys.stdout.write(printable(text).rstrip("\n") + "\n")


def print_answer(options: argparse.Namespace, value: Any, text: str | Callable[[], object]) -> None:
    """Print `value` as JSON if `--json` is given, otherwise print `text`. If `text` is a function, call it to print instead."""
    if options.json:
        print_json(value)
    elif isinstance(text, str):
        print_text(text)
    else:
        text()


def print_json(value: Any) -> None:
    """Print a value on stdout as JSON. Write dataclasses as objects, times and paths as strings, NaN and infinities as null."""

    def text(inner: Any) -> str:
        return inner.isoformat() if isinstance(inner, datetime) else str(inner)

    sys.stdout.write(json.dumps(_finite(value), indent=1, default=text, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case set() | frozenset():
            return sorted(map(_finite, value), key=str)
        case float() if not math.isfinite(value):
            return None
        case _ if is_dataclass(value):
            return {one.name: _finite(getattr(value, one.name)) for one in fields(value)}
    return value


def _line(words: str) -> str:
    """Join the lines of a text into one. Keep one space at the beginning or end if the text has any there."""
    return f"{' ' * words.startswith(' ')}{one_line(words)}{' ' * words.endswith(' ')}"


@dataclass(frozen=True, kw_only=True)
class LiveLine:
    """The content of a live line on the terminal: current activity, finished fraction, and start time.

    If `share` is None, the finished fraction is unknown, and the line shows the elapsed time. `begun` is the share at the start,
    for a resumed run. A stage's line has an empty `activity`, because its name says everything.
    """

    activity: str
    detail: str = ""
    share: float | None = None
    begun: float = 0.0
    since: float = field(default_factory=time.monotonic)


class LiveDisplay:
    """A context manager that redraws progress lines, one per device or stage such as build. Without a terminal, it draws none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: dict[str, LiveLine] = {}  # never changed in place: another thread reads it
        self._logged_on: list[tuple[RichHandler, Console]] = []
        self._live = Live(console=console, transient=True, refresh_per_second=_PER_SECOND, get_renderable=self._rendered)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
            handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, RichHandler)]
            self._logged_on = [(handler, handler.console) for handler in handlers]
            for handler in handlers:
                handler.console = self._console  # print log messages above the live lines
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()
        for handler, console in self._logged_on:
            handler.console = console

    def set(self, name: str, what: str, detail: str, share: float | None = None) -> None:
        """Update the progress line of a device or a stage such as build. If the activity `what` changed, restart its timer."""
        before = self._lines.get(name)
        if before and before.activity == what:
            line = replace(before, detail=detail, share=share)
        else:
            line = LiveLine(activity=what, detail=detail, share=share, begun=share or 0.0)
        self._lines = {**self._lines, name: line}

    def drop(self, unwanted: Callable[[str, LiveLine], bool]) -> None:
        self._lines = {name: line for name, line in self._lines.items() if not unwanted(name, line)}

    def elapsed_s(self, name: str) -> float:
        """Return the seconds since the device or stage `name` began its current activity. Without a live line, return 0."""
        line = self._lines.get(name)
        return time.monotonic() - line.since if line else 0.0

    def _rendered(self) -> Group:
        width, now = self._console.width, time.monotonic()
        return Group(*(format_line(name, line, now, width) for name, line in self._lines.items()))


def format_line(name: str, line: LiveLine, now: float, width: int) -> Text:
    """Render a live line as rich Text, `width` columns wide. It shows name, progress bar, activity, and remaining time."""
    right = _time_left(line, now - line.since)
    first = Text(one_line(name), style="bold")
    first.truncate(width // 5, overflow="ellipsis")
    bar = ""
    if line.share is not None:
        done = round(max(0.0, min(line.share, 1.0)) * _BAR_CELLS)
        bar = f" {'━' * done}{'·' * (_BAR_CELLS - done)}"
    left = Text.assemble(first, bar, f" {one_line(' '.join(filter(None, (line.activity, line.detail))))}")
    left.truncate(max(1, width - len(right) - 1), overflow="ellipsis", pad=True)
    return left.append(f" {right}")


def _time_left(line: LiveLine, elapsed_s: float) -> str:
    """Return a progress line's time: `0:01:30 left`, or `done`. If no estimate is possible, return the elapsed time `0:01:30`."""
    if line.begun >= 1.0:
        return "done"
    if line.share is None or line.share <= line.begun:
        return str(timedelta(seconds=int(elapsed_s)))
    left_s = elapsed_s * (1 - min(line.share, 1.0)) / (line.share - line.begun)
    return f"{timedelta(seconds=ceil(left_s))} left"


class PipeClosedError(BaseException):
    """Raised when the program that reads stdout, such as `head`, has exited. `except Exception` does not catch this class."""


class CheckedStream:
    r"""A wrapper of stdout that raises a clear error if writing fails, and afterwards discards all output.

    Characters that the stream's encoding lacks are escaped, as `\xd7`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text to the stream and return the number of characters."""
        with self._reporting_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream. Raise PipeClosedError if the reading program has exited, or StorageError for any other failure."""
        with self._reporting_errors():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):  # discard buffered output, or Python fails again at exit
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                raise PipeClosedError from error
            hint = "write the output to a disk with free space; measured launches are stored"
            raise StorageError(f"stdout cannot be written: {error.strerror}", hint=hint) from error


_UNBOUNDED = 100_000  # characters: as wide as a table would be


def empty_table(*columns: str, whole: Sequence[str] = ()) -> Table:
    """Return a rich Table with the given column titles and no rows. In columns named in `whole`, cells are never wrapped."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    return table


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], whole: Sequence[str] = ()) -> None:
    """Print a table of plain text on stdout, each cell on one line."""
    table = empty_table(*columns, whole=whole)
    for row in rows:
        table.add_row(*map(one_line, row))
    stdout_console().print(table)


def figures_table(*columns: str, title: str | None = None) -> Table:
    """Return a rich Table with the given column titles and no rows. Align the first column left, and all later columns right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table


def print_text_table(console: Console, table: TextTable) -> None:
    console.print(_printed_columns(table, range(len(table.columns))))
    for note in table.notes:
        print_text(note)


def print_parts(console: Console, table: TextTable, keys: int) -> None:
    """Print a table, not its notes. If it is too wide, print several tables, each beginning with the first `keys` columns.

    Values and words of column names are not broken, unless a single column is too wide.
    """
    title, named, rest = table.title, range(keys), range(keys, len(table.columns))
    whole = _printed_columns(table, range(len(table.columns)))
    if _has_room(console, whole):
        console.print(whole)
        return
    narrow = replace(table, columns=tuple(map(_wrapped_heading, table.columns, zip(*table.rows, strict=True))))
    while rest:
        counts = (n for n in range(len(rest), 1, -1) if _has_room(console, _printed_columns(narrow, [*named, *rest[:n]])))
        count = next(counts, 1)
        console.print(_printed_columns(replace(narrow, title=title), [*named, *rest[:count]]))
        title, rest = "", rest[count:]


def _wrapped_heading(name: str, cells: Sequence[str]) -> str:
    """Return the column heading `name` with line breaks between words. No line is wider than the widest cell or word."""
    width = max(map(cell_len, (*cells, *name.split())))
    return "\n".join(textwrap.wrap(name, width, break_long_words=False, break_on_hyphens=False))


def _has_room(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(max_width=_UNBOUNDED)).maximum <= console.width


def _printed_columns(table: TextTable, columns: Sequence[int]) -> Table:
    """Return a printable table of those columns of `table` whose indexes are given."""
    printed = Table(title=table.title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for i in columns:
        printed.add_column(table.columns[i], justify="right" if table.numeric[i] else "left", overflow="fold")
    for row in table.rows:
        printed.add_row(*(row[i] for i in columns))
    return printed
