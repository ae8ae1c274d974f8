"""Place: a key -> the file under it in a folder or a bucket, looked at, read, written whole or removed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file of a place, by its key: a relative path with `/`."""

    key: str
    size_bytes: int
    modified_at: datetime  # aware, by the clock of the place


class StorePlace(Protocol):
    """The files of a store. Whatever fails is a StorageError that names the place."""

    @property
    def name(self) -> str:
        """Return the place as messages name it, without credentials."""
        ...

    def look(self, key: str) -> Listed | None:
        """Return what is known of a file without reading it; None where there is none."""
        ...

    def listed(self, prefix: str) -> list[Listed]:
        """Return every file below a prefix."""
        ...

    def read(self, key: str, size_bytes: int) -> Iterator[bytes]:
        """Yield the first bytes of a file, no more than asked for, in blocks."""
        ...

    def put(self, key: str, content: Path | bytes) -> None:
        """Write a file so that it appears whole or not at all; one that is there is replaced."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file, which need not be there."""
        ...
