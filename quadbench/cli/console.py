"""Console: what happens during a run -> lines and progress bars on stderr, tables on stdout."""

import json
import math
import sys
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from quadbench.artifacts import MIB, Bundle, Deployment, LaunchPlan, RunRecord, Status
from quadbench.artifacts.device_text import one_line, printable

WORST_SITES = 5  # of each adapter are shown
_FILE_WIDTH = 200  # wider than any table
_TERMINAL_WIDTH, _LEAST_WIDTH, _MOST_WIDTH = 80, 20, 10_000
_READ_WIDTH = 100  # of a wider terminal: more is no easier to read
_MOST_CHARACTERS = 20_000  # of an error's message


def stdout_console() -> Console:
    """Return the console for results, at most 100 wide. In a file or a pipe tables stand as wide as they are.

    COLUMNS says how wide instead. A COLUMNS in which no table has room, as 0, says nothing.
    """
    from quadbench.spec import variable

    console = _ResultsConsole(markup=False, emoji=False)
    columns = variable("COLUMNS") or ""
    if columns.isdecimal() and _LEAST_WIDTH <= int(columns) <= _MOST_WIDTH:
        return console
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    else:
        console.width = _TERMINAL_WIDTH if columns else min(console.width, _READ_WIDTH)
    return console


class _ResultsConsole(Console):
    """A console on which no text, which may be a device's, is markup or a code for the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


RUN_STAGES = ("build", "harness", "compile", "push", "measure")
_PARTS_OF = {"bundle": "build", "compiled": "compile"}  # what is told under a name of its own, by its first word


class _TimeLeft(ProgressColumn):
    """The column that says how long a bar will still take, where that can be told of what it took so far."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None or not task.completed else f"about {timedelta(seconds=ceil(left))} left")


class RunConsole:
    """The pipeline's observer: one line for each stage, a bar for each device while it is pushed to or measured.

    With `stages`, those that a command goes through, each line says which of them it is of.
    """

    def __init__(self, console: Console, stages: Sequence[str] = ()) -> None:
        self._console = console
        self._stages = tuple(stages)
        self._launches: dict[str, str] = {}  # by device, which of how many
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            _TimeLeft(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._last_stage = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, stage: str, detail: str) -> None:
        """Show that a stage goes on to its next step: a bar has the step, the lines only the stage, and each run of a sweep."""
        with self._lock:
            if stage != self._last_stage or stage == "sweep":
                self._last_stage = stage
                self._say(stage, f" {detail}" if stage == "sweep" else "")
            self._set(stage, detail, None)

    def built(self, bundle: Bundle) -> None:
        peak = f", {bundle.build_peak_bytes / 1e9:.1f} GB of memory at most" if bundle.build_peak_bytes else ""
        with self._lock:
            seconds = sum(bundle.build_seconds.values())
            self._say("build", f" took {seconds:.0f} s{peak}")

    def reused(self, stage: str, digest: str) -> None:
        with self._lock:
            self._say(stage, f" unchanged, reused ({digest[:12]})")

    def sent(self, device: str, sent_bytes: int, total_bytes: int) -> None:
        with self._lock:
            amount = f"{sent_bytes / MIB:.1f} of {total_bytes / MIB:.1f} MB"
            self._set(f"push {device}", amount, sent_bytes / total_bytes if total_bytes else 1.0)

    def deployed(self, deployment: Deployment) -> None:
        with self._lock:
            self._drop(f"push {deployment.device.address}")
            sent = f"{deployment.sent_bytes / MIB:.1f} MB sent" if deployment.sent_bytes else "0 bytes sent"
            there = f"{deployment.present_bytes / MIB:.1f} MB there already"
            self._say("push", f" {deployment.device.address}: {sent}, {there}, {deployment.seconds:.1f} s")

    def launch(self, device: str, launch: LaunchPlan, number: int, total: int) -> None:
        with self._lock:
            whose = f"{launch.side}, " if launch.side else ""
            self._launches[device] = f"{whose}{number} of {total}"
            images = sum(block.warmup + block.iterations for block in launch.sequence)
            amount = f"launch {number} of {total}: {whose}{launch.variant}, {images} images"
            self._set(f"measure {device}", amount, (number - 1) / total)

    def record(self, record: RunRecord) -> None:
        with self._lock:
            seconds = (record.ended_at - record.started_at).total_seconds()
            colour = "green" if record.status is Status.OK else "red"
            reason = f": {record.reason}" if record.reason else ""
            which = self._launches.get(record.device.address)
            count = f" ({which})" if which else ""
            name = f" {record.device.address}, {record.variant} {record.launch}{count}: "
            self._say("measure", name, (record.status.value, colour), f" in {seconds:.1f} s{reason}")

    def _say(self, stage: str, *words: str | tuple[str, str]) -> None:
        """Print a line. Words come from recipes and devices, so nothing in them is markup; a pair is a word with its colour."""
        shown = [_line(word) if isinstance(word, str) else word for word in words]
        first = stage.split(maxsplit=1)[0]
        known = _PARTS_OF.get(first, first)
        count = f"{self._stages.index(known) + 1}/{len(self._stages)} " if known in self._stages else ""
        self._console.print(Text.assemble(count, (stage, "bold"), *shown), highlight=False)

    def _set(self, name: str, amount: str, share: float | None) -> None:
        if name not in self._bars:
            for other in [n for n in self._bars if n.split()[0] != name.split()[0]]:
                self._drop(other)
            self._bars[name] = self._progress.add_task(
                escape(printable(name)), total=None if share is None else 1.0, amount=amount
            )
        self._progress.update(self._bars[name], completed=share or 0.0, amount=escape(printable(amount)))

    def _drop(self, name: str) -> None:
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))


def print_error(message: str) -> None:
    """Print a message on stderr, of a very long one the beginning; nothing in it is markup or a code for the terminal."""
    left_out = len(message) - _MOST_CHARACTERS
    shown = f"{message[:_MOST_CHARACTERS]}... ({left_out} more characters)" if left_out > 0 else message
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), printable(shown)), soft_wrap=True, highlight=False)


def print_text(text: str) -> None:
    """Print on stdout, unwrapped; nothing in it is a code for the terminal."""
    sys.stdout.write(printable(text).rstrip("\n") + "\n")


def print_json(value: Any) -> None:
    """Print on stdout as JSON; dates in ISO 8601, paths as text, and null for NaN and infinities, which JSON does not have."""
    sys.stdout.write(json.dumps(_finite(value), indent=1, default=_text, allow_nan=False) + "\n")


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
    return value


def _line(words: str) -> str:
    """Return words on one line; the spaces around them stay, as they stand between others."""
    return f"{' ' * words.startswith(' ')}{one_line(words)}{' ' * words.endswith(' ')}"
