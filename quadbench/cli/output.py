"""Output: standard output as Python opened it -> the same, whose failures are told as its own, whatever a command does."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from quadbench.errors import OutputError

READER_GONE = 141  # as of a program that the signal SIGPIPE has ended: 128 + 13


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Print through a standard output that takes every character, and whose failures end the command.

    Characters that its encoding lacks are written out, as `\\xd7`. All of it is written when the context ends.

    Raises:
        OutputError: it cannot be written.
        SystemExit: whoever read it has gone; nobody is left to be told.
    """
    plain = sys.stdout
    if hasattr(plain, "reconfigure"):
        plain.reconfigure(errors="backslashreplace")
    output: Any = _Output(plain)
    sys.stdout = output
    try:
        yield
    finally:
        sys.stdout = plain
        output.flush()


class _Output:
    """Standard output, which is none where it was closed before quadbench began."""

    def __init__(self, plain: TextIO | None) -> None:
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def isatty(self) -> bool:
        return self._plain is not None and self._plain.isatty()

    def write(self, text: str) -> Any:
        return self._checked(lambda plain: plain.write(text))

    def flush(self) -> None:
        if self._plain is not None:
            self._checked(lambda plain: plain.flush())

    def _checked(self, use: Callable[[TextIO], Any]) -> Any:
        if self._plain is None:
            raise OutputError("standard output is closed", hint="leave it open, or send it to a file")
        try:
            return use(self._plain)
        except OSError as error:
            self._give_up()
            if isinstance(error, BrokenPipeError):
                raise SystemExit(READER_GONE) from error
            hint = "make room where it goes to; the results folder is another matter, and what was measured is stored"
            raise OutputError(f"standard output cannot be written: {error.strerror}", hint=hint) from error

    def _give_up(self) -> None:
        """Send what Python still holds nowhere, or it would fail once more when the process ends."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._plain.fileno())  # type: ignore[union-attr]
            os.close(nowhere)
