"""Live: what each device does now -> a line for each at the end of the terminal, renewed as it goes, never wider than that."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import ceil
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.text import Text

from quadbench.artifacts.device_text import one_line

_BAR_CELLS = 10
_PER_SECOND = 4


@dataclass(frozen=True, kw_only=True)
class LiveLine:
    """The line of a device, or of a stage that is of none: what it does, the share of that which is done, and since when.

    A share of None is not known; then the line says how long it has taken so far. `begun` is the share at the beginning, as of a
    run that goes on. A stage does nothing that is not in its name: its `what` is empty.
    """

    what: str
    detail: str = ""
    share: float | None = None
    begun: float = 0.0
    since: float = field(default_factory=time.monotonic)


class LiveLines:
    """The lines of devices and stages. Without a terminal there are none."""

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
                handler.console = self._console  # so that what is logged stands above the lines, and not among them
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()
        for handler, console in self._logged_on:
            handler.console = console

    def set(self, name: str, what: str, detail: str, share: float | None = None) -> None:
        """Say what a device or stage does now; its time counts from when it began to do that."""
        before = self._lines.get(name)
        if before and before.what == what:
            line = replace(before, detail=detail, share=share)
        else:
            line = LiveLine(what=what, detail=detail, share=share, begun=share or 0.0)
        self._lines = {**self._lines, name: line}

    def drop(self, unwanted: Callable[[str, LiveLine], bool]) -> None:
        """Take lines away."""
        self._lines = {name: line for name, line in self._lines.items() if not unwanted(name, line)}

    def elapsed_s(self, name: str) -> float:
        """Return for how long a device has done what it does."""
        line = self._lines.get(name)
        return time.monotonic() - line.since if line else 0.0

    def _rendered(self) -> Group:
        width, now = self._console.width, time.monotonic()
        return Group(*(shown_line(name, line, now, width) for name, line in self._lines.items()))


def shown_line(name: str, line: LiveLine, now: float, width: int) -> Text:
    """Return a line as a terminal of a width shows it: name, bar, what it does, and at the right how long it still takes."""
    right = _time_left(line, now - line.since)
    first = Text(one_line(name), style="bold")
    first.truncate(width // 5, overflow="ellipsis")
    bar = "" if line.share is None else f" {_bar(line.share)}"
    left = Text.assemble(first, bar, f" {one_line(' '.join(filter(None, (line.what, line.detail))))}")
    left.truncate(max(1, width - len(right) - 1), overflow="ellipsis", pad=True)
    return left.append(f" {right}")


def _bar(share: float) -> str:
    done = round(max(0.0, min(share, 1.0)) * _BAR_CELLS)
    return "━" * done + "·" * (_BAR_CELLS - done)


def _time_left(line: LiveLine, elapsed_s: float) -> str:
    """Return how long it still takes by what it took so far; where that cannot be told, how long it took; or that it is done."""
    if line.begun >= 1.0:
        return "done"
    if line.share is None or line.share <= line.begun:
        return str(timedelta(seconds=int(elapsed_s)))
    left_s = elapsed_s * (1 - min(line.share, 1.0)) / (line.share - line.begun)
    return f"{timedelta(seconds=ceil(left_s))} left"
