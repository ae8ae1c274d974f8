"""Files in a store's folder or bucket, accessed through the library obstore: look up, read, write atomically, remove."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from quadbench.errors import StorageError
from quadbench.spec.variables import mask_urls_in

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_BLOCK_BYTES = 2**24
_PART_BYTES = 5 * 2**20  # the smallest part of a multipart upload in S3
_PARTS_AT_ONCE = 2  # few, so that each part arrives within the request timeout on a slow line
_UNFINISHED = re.compile(r"#[0-9]+$")  # suffix of unfinished files in a folder
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST_CHARACTERS = 200  # limit for a service's message; some quote whole pages

# Parts of obstore's message about a failed request: the request, the cause as given by service or system, and the request for
# a cloud host's own credentials.
_REQUEST = re.compile(r"performing ([A-Z]+ [^\s?]+)")
_CAUSE = re.compile(r'<Message>([^<]+)|(?:message|error): "([^"]+)"|source: (TimedOut)')
_HOSTS_CREDENTIALS = re.compile(r"/latest/api/token|/computeMetadata/|/metadata/identity/")


Listed: TypeAlias = "ObjectMeta"
"""A file of a store, as obstore lists it: a dict with its `path` (the key, with `/`), `size` in bytes, and `last_modified`."""


class Place:
    """The folder or bucket that holds a store's files. Each failure raises a StorageError that names the folder or bucket.

    A folder has to exist and is not created: if missing, it may be a network share that is not mounted.
    """

    def __init__(self, name: str, connect: Callable[[], "ObjectStore"], folder: Path | None = None) -> None:
        self.name = name  # for messages, without credentials
        self._folder = folder
        with self._told():
            self._files = connect()

    def first(self) -> str | None:
        """Return the folder's first name or None. Ignore hidden files, lost+found and unfinished uploads. A bucket gives None."""
        if self._folder is None:
            return None
        with self._told():
            names = [path.name for path in self._folder.iterdir() if not _UNFINISHED.search(path.name)]
        return min((name for name in names if name != "lost+found" and not name.startswith(".")), default=None)

    def look(self, key: str) -> "Listed | None":
        """Return the Listed (path, size, modification time) of the file at a key, or None if no file is at the key."""
        with self._told():
            if self._folder and not (self._folder / key).is_file():  # obstore would block on a named pipe
                return None
            try:
                return self._files.head(key)
            except FileNotFoundError:
                return None

    def listed(self, prefix: str) -> list[Listed]:
        """Return a list of Listed (path, size, modification time), one for each file whose key starts with a prefix."""
        with self._told():
            return [file for some in self._files.list(prefix) for file in some]

    def cut_off(self) -> list[Listed]:
        """Return a list of Listed (path, size, time) of files that unfinished uploads left in the folder; empty for a bucket."""
        if self._folder is None:
            return []
        with self._told():
            paths = [path for path in self._folder.rglob("*#*") if _UNFINISHED.search(path.name)]
            states = [(path, path.stat()) for path in paths if path.is_file()]
            return [
                {
                    "path": path.relative_to(self._folder).as_posix(),
                    "size": state.st_size,
                    "last_modified": datetime.fromtimestamp(state.st_mtime, UTC),
                    "e_tag": None,
                    "version": None,
                }
                for path, state in states
            ]

    def read(self, key: str, size_bytes: int) -> Iterator[bytes]:
        """Yield the first `size_bytes` bytes of the file with the key `key` in the store, as bytes objects of up to 16 MiB."""
        for start in range(0, size_bytes, _BLOCK_BYTES):
            with self._told():
                block = self._files.get_range(key, start=start, end=min(start + _BLOCK_BYTES, size_bytes)).to_bytes()
            yield block

    def put(self, key: str, content: Path | bytes | Iterator[bytes]) -> None:
        """Write content (a local file, bytes, or an iterator of bytes) to a key atomically. Replace a file already at the key."""
        with self._told():
            if isinstance(content, Path) and content.stat().st_size > _PART_BYTES:
                content = _blocks(content)  # so that Ctrl-C works between blocks
            self._files.put(key, content, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    def remove(self, key: str) -> None:
        """Delete the file with the key `key` from the store. Do nothing if the store does not contain it."""
        with self._told():
            if self._folder:  # obstore refuses the keys of unfinished files
                (self._folder / key).unlink(missing_ok=True)
                return
            with suppress(FileNotFoundError):
                self._files.delete(key)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Return a context manager that converts exceptions in its `with` block to StorageErrors with the store's name."""
        try:
            if self._folder:
                os.stat(f"{self._folder}/.")  # noqa: PTH116  (pathlib drops the dot, which refuses a file)
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of obstore's Rust code
                raise
            hint = self._hint(error)
            raise StorageError(f"the store '{self.name}' cannot be used: {_reason(error)}", hint=hint) from error

    def _hint(self, error: BaseException) -> str:
        if self._folder is None:
            return "see that $QUADBENCH_STORE is right, and the credentials and the region in the service's own variables"
        said = re.search(r"\(os error ([0-9]+)\)", str(error))  # as obstore says
        number = getattr(error, "errno", None) or (int(said[1]) if said else None)
        if number in _FULL:
            return "make room there; quadbench store collect removes what nobody needs any more"
        if number == errno.ENOENT and not os.path.exists(self._folder):  # noqa: PTH110  (it raises nothing)
            return "make it, or mount it"
        return "see that $QUADBENCH_STORE is right, and that this user may use it"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_PART_BYTES):
            yield block


def _reason(error: BaseException) -> str:
    """Return why access to a store failed, in a line without credentials: the innermost cause, then the failed request."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said, _, details = str(error).partition("\n\nDebug source:")
    said = re.sub(r"^Generic \w+ error: | \(os error [0-9]+\)", "", said)
    if _HOSTS_CREDENTIALS.search(said):
        said = "no credentials are set, and this host has none of its own"
    elif request := _REQUEST.search(said):
        causes = ["".join(words) for words in _CAUSE.findall(details)]
        cause = causes[-1] if causes else said.rpartition(" - ")[2]
        said = f"{cause.replace('TimedOut', 'no answer in time').rstrip(' .:')} ({request[1]})"
    return mask_urls_in(" ".join(said.split()))[:_MOST_CHARACTERS].rstrip(".")
