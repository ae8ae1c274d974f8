"""Output: stdout, which may be a file on a full disk or a pipe that is left -> the same, with failures as quadbench's errors."""

import contextlib
import os
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any, TextIO

from quadbench.errors import StorageError


class PipeLeftError(BaseException):
    """The end of a pipe that nobody reads any more, as behind `head`. It is no fault, so whoever catches errors lets it pass."""


class Output:
    """A stream that says what is wrong where it cannot be written. Nothing is written to it from then on.

    Characters that its encoding lacks, as in a bare container's locale, are written out, as `\\xd7`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write as a stream does.

        Raises:
            StorageError: it cannot be written.
            PipeLeftError: nobody reads it.
        """
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what was held back; raises as `write`."""
        with self._told():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._end()
            if isinstance(error, BrokenPipeError):
                raise PipeLeftError from error
            hint = "write it where there is room; what was measured is stored"
            raise StorageError(f"stdout cannot be written: {error.strerror}", hint=hint) from error

    def _end(self) -> None:
        """Let what is still held back go nowhere, or Python fails once more as it ends."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
