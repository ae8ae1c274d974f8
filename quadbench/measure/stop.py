"""Stop: Ctrl-C while devices measure -> what runs is finished and nothing else begun; pressed again, it is cut off."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ADVICE = "Ctrl-C: the launch that runs on each device is finished and stored; press Ctrl-C again to cut it off"

log = logging.getLogger(__name__)


class Stop:
    """The wish that a job ends. `is_cut_off` says that what fails from now on was ended on purpose."""

    def __init__(self) -> None:
        self._asked, self._cut_off = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._waits: list[Callable[[], object]] = []

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    @property
    def is_cut_off(self) -> bool:
        return self._cut_off.is_set()

    def ask(self) -> None:
        """Have nothing begun any more, and end what only waits."""
        self._asked.set()
        with self._lock:
            for end in self._waits:
                end()

    def cut_off(self) -> None:
        """Take what fails from now on for ended on purpose."""
        self._cut_off.set()
        self.ask()

    def wait(self, seconds: float) -> bool:
        """Wait, and say whether the end is asked for."""
        return self._asked.wait(seconds)

    @contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """While something waits, have `end` called where the end is asked for."""
        with self._lock:
            self._waits.append(end)
        try:
            if self.is_asked:
                end()
            yield
        finally:
            with self._lock:
                self._waits.remove(end)


@contextmanager
def ctrl_c_asks(stop: Stop) -> Iterator[None]:
    """Let the first Ctrl-C ask for the end, and say what the second would do: interrupt, as always.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; once, it comes at the end of the block.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield  # no other thread may set signals, and whoever has set this one wants it
        return

    pressed: list[bool] = []

    def ask() -> None:
        log.warning(_ADVICE)
        stop.ask()

    def first(_number: int, _frame: object) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, usual)
        threading.Thread(target=ask).start()  # what is interrupted may hold a lock that both take

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        raise KeyboardInterrupt
