"""Steps: the parts of a build as they run -> the seconds that each took, and word of it to whoever watches."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quadbench.host import give_back, peak_memory_bytes

log = logging.getLogger(__name__)
Notify = Callable[[str], None]


def silent(_step: str) -> None:
    """Tell nobody."""


class Steps:
    """The steps of a build: `notify` is called with the name of each as it starts; `seconds` fills as they end."""

    def __init__(self, notify: Notify = silent) -> None:
        self.notify = notify
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.notify(name)
        started = time.monotonic()
        yield
        give_back()
        self.seconds[name] = round(time.monotonic() - started, 3)
        log.info("%s, %.1f s, %.2f GB at most so far", name, self.seconds[name], self.peak_bytes / 1e9)

    @property
    def peak_bytes(self) -> int:
        """Return the most memory that this process has held until now."""
        return peak_memory_bytes()
