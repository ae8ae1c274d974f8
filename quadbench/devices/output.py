"""Output: pieces of bytes that a command writes -> lines, a whole text, or the end of one, each of bounded size."""

from collections.abc import Iterator

from quadbench.errors import OutputLimitError

LINE_LIMIT_BYTES = 64 * 1024  # of one line of a stream: an event of the harness takes hundreds
TEXT_LIMIT_BYTES = 16 * 2**20  # of a command's whole output: the longest, a list of a device's objects, takes thousands
TAIL_BYTES = 64 * 1024  # that are kept of stderr


class Lines:
    """The lines of a stream, put together from pieces without looking at a byte twice. `source` names it in messages."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._number = 1  # of the line that is being put together
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def take(self, piece: bytes) -> Iterator[str]:
        """Yield the lines that end in this piece, without their ends.

        Raises:
            OutputLimitError: a line is too long; the lines before it have been given.
        """
        *ended, rest = piece.split(b"\n")
        if ended:
            ended[0] = b"".join((*self._pieces, ended[0]))
            self._pieces, self._size_bytes = [], 0
        for line in ended:
            self._check(len(line))
            yield as_text(line)
            self._number += 1
        self._size_bytes += len(rest)
        self._check(self._size_bytes)
        if rest:
            self._pieces.append(rest)

    def rest(self) -> str:
        """Return what has come of a line that has not ended."""
        return as_text(b"".join(self._pieces))

    def _check(self, size_bytes: int) -> None:
        if size_bytes > LINE_LIMIT_BYTES:
            line = f"line {self._number} of {self._source}"
            raise OutputLimitError(f"{line} has more than {LINE_LIMIT_BYTES} bytes, the most that is read")


class Whole:
    """The whole output of a command. `source` names it in messages."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._content = bytearray()

    def take(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            OutputLimitError: the output is too long.
        """
        self._content += piece
        if len(self._content) > TEXT_LIMIT_BYTES:
            raise OutputLimitError(f"{self._source} has more than {TEXT_LIMIT_BYTES} bytes, the most that is read")

    @property
    def text(self) -> str:
        """Return what has come so far."""
        return as_text(self._content)


class Tail:
    """The end of an output; what came before it is not kept."""

    def __init__(self) -> None:
        self._content = bytearray()

    def take(self, piece: bytes) -> None:
        """Add a piece."""
        self._content += piece[-TAIL_BYTES:]
        del self._content[:-TAIL_BYTES]

    @property
    def text(self) -> str:
        """Return the end of what has come so far."""
        return as_text(self._content)


def as_text(data: bytes | bytearray) -> str:
    """Return what a program wrote as text; bytes that are no UTF-8 become question marks."""
    return data.decode(errors="replace")
