"""Interference: an observer that does something when a launch begins, as pressing Ctrl-C."""

from collections.abc import Callable

from quadbench.artifacts import LaunchPlan
from support.watcher import Silent


class Interfering(Silent):
    """An observer that keeps the names of launches, as `shared 0`, and acts at the one with a number, from 1."""

    def __init__(self, at: int | None = None, act: Callable[[], None] = lambda: None) -> None:
        self.launches: list[str] = []
        self._at, self._act = at, act

    def launch_started(self, _device: str, launch: LaunchPlan, _number: int, _total: int) -> None:
        self.launches.append(f"{launch.variant} {launch.launch}")
        if len(self.launches) == self._at:
            self._act()


def press_ctrl_c() -> None:
    """Interrupt what runs now."""
    raise KeyboardInterrupt
