"""Waiting: an action on devices -> the same as soon as no other process has one of them, where `--wait` asks for it."""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

from quadbench.errors import DeviceInUseError
from quadbench.observer import Observer

_PAUSE_S = 2.0
ResultT = TypeVar("ResultT")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add `--wait`."""
    parser.add_argument("--wait", action="store_true", help="wait for a device that another process on this machine has")


def once_free(
    act: Callable[[], ResultT], observer: Observer, *, waits: bool, pause: Callable[[float], None] = time.sleep
) -> ResultT:
    """Do what takes devices before all else; where another process has one and `waits` says so, try again until it has not.

    Raises:
        DeviceInUseError: another process has a device, and nobody waits.
    """
    while True:
        try:
            return act()
        except DeviceInUseError as error:
            if not waits:
                raise
            observer.step("wait", error.message)
            pause(_PAUSE_S)
