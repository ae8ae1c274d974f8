"""Remembered: a function -> the same, asked anew only for what is older than some seconds, however many ask at once."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Remembered(Generic[KeyT, ValueT]):
    """Answers by key, at most so many, each no older than `age_s`. One is worked out at a time; who asks meanwhile waits."""

    def __init__(self, ask: Callable[[KeyT], ValueT], *, age_s: float, most: int) -> None:
        self._ask, self._age_s, self._most = ask, age_s, most
        self._known: OrderedDict[KeyT, tuple[float, ValueT]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, key: KeyT) -> ValueT:
        """Return the answer. What the function raises is raised, and not remembered."""
        with self._lock:
            known = self._known.get(key)
            if known is None or time.monotonic() - known[0] >= self._age_s:
                value = self._ask(key)
                known = (time.monotonic(), value)  # as old as its end: a slow answer is not asked for at once again
                self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return known[1]
