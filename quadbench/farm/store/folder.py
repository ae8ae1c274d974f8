"""Folder: a folder that hosts share -> a place, whose files get their names when they are whole."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quadbench.errors import StorageError
from quadbench.farm.store.keys import INCOMING
from quadbench.farm.store.place import Listed
from quadbench.spec.files import open_regular

_BLOCK_BYTES = 2**20
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class FolderPlace:
    """A folder that is there: one that is not may be a share that is not mounted, and is not made."""

    root: Path

    @property
    def name(self) -> str:
        """Return the folder's path."""
        return str(self.root)

    def first(self) -> str | None:
        """Return the name of something in the folder that a store began no file with; None where it is as good as empty.

        Raises:
            StorageError: the folder is not there, or cannot be read.
        """
        with self._told():
            return min((path.name for path in self.root.iterdir() if not _may_be_empty_with(path.name)), default=None)

    def look(self, key: str) -> Listed | None:
        """Return what is known of a file without reading it; None where there is none.

        Raises:
            StorageError: the folder is not there, or cannot be read.
        """
        with self._told():
            return self._listed(self.root / key)

    def listed(self, prefix: str) -> list[Listed]:
        """Return every file below a prefix.

        Raises:
            StorageError: the folder is not there, or cannot be read.
        """
        with self._told():
            files = (self._listed(path) for path in sorted((self.root / prefix).rglob("*")) if path.is_file())
            return [file for file in files if file]

    def read(self, key: str, size_bytes: int) -> Iterator[bytes]:
        """Yield the first bytes of a file, no more than asked for, in blocks.

        Raises:
            StorageError: it cannot be read.
        """
        with self._told(), open_regular(self.root / key) as file:
            left = size_bytes
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                yield block

    def put(self, key: str, content: Path | bytes) -> None:
        """Write a file under another name, and rename it when it is whole.

        Raises:
            StorageError: the folder is full, or cannot be written.
        """
        target, temporary = self.root / key, self.root / INCOMING / uuid.uuid4().hex
        with self._told():
            try:
                for folder in (temporary.parent, target.parent):
                    folder.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    shutil.copyfile(content, temporary)
                else:
                    temporary.write_bytes(content)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Remove a file, which need not be there.

        Raises:
            StorageError: the folder cannot be written.
        """
        with self._told():
            (self.root / key).unlink(missing_ok=True)

    def _listed(self, path: Path) -> Listed | None:
        try:
            state = path.stat()
        except FileNotFoundError:
            return None
        modified_at = datetime.fromtimestamp(state.st_mtime, UTC)
        return Listed(key=path.relative_to(self.root).as_posix(), size_bytes=state.st_size, modified_at=modified_at)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the file system says into an error that names the folder."""
        try:
            os.stat(self.root / ".")  # noqa: PTH116  (pathlib drops the dot, which refuses a file)
            yield
        except OSError as error:
            hint = "see that $QUADBENCH_STORE is right, and that this user may use it"
            if error.errno in _FULL:
                hint = "make room there; quadbench store collect removes what nobody needs any more"
            elif error.errno == errno.ENOENT and not os.path.exists(self.root):  # noqa: PTH110  (it raises nothing)
                hint = "make it, or mount it"
            file = os.fsdecode(error.filename or "")
            where = f": '{file}'" if file.startswith(f"{self.name}/") else ""  # of a copy it may be the source
            raise StorageError(f"the store '{self.name}' cannot be used: {error.strerror}{where}", hint=hint) from error


def _may_be_empty_with(name: str) -> bool:
    """Say whether a name is of what a file system or a writer that was cut off leaves in an empty folder."""
    return name in (INCOMING, "lost+found") or name.startswith(".")
