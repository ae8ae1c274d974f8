"""Place: a key -> the file under it in a folder or a bucket, through obstore: looked at, read, written whole or removed."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench.errors import StorageError
from quadbench.farm.store.keys import INCOMING
from quadbench.spec.variables import masked_in

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_BLOCK_BYTES = 2**24
_PART_BYTES = 5 * 2**20  # the least that S3 takes as a part of a file
_PARTS_AT_ONCE = 2  # few, so that a slow line carries each of them in the time that a request has
_UNFINISHED = re.compile(r"#[0-9]+$")  # how the name of a file in a folder ends until it is whole
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST_CHARACTERS = 200  # of what a service says; some quote whole pages

# In what obstore says of a failed request: the request, a cause in words of the service or the system, and the request for the
# credentials that a host of a cloud has of its own.
_REQUEST = re.compile(r"performing ([A-Z]+ [^\s?]+)")
_CAUSE = re.compile(r'<Message>([^<]+)|(?:message|error): "([^"]+)"|source: (TimedOut)')
_HOSTS_CREDENTIALS = re.compile(r"/latest/api/token|/computeMetadata/|/metadata/identity/")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A file of a place, by its key: a relative path with `/`."""

    key: str
    size_bytes: int
    modified_at: datetime  # aware, by the clock of the place


class Place:
    """The files of a store. Whatever fails is a StorageError that names the place.

    A folder has to be there: one that is not may be a share that is not mounted, and is not made.
    """

    def __init__(self, name: str, connect: Callable[[], "ObjectStore"], folder: Path | None = None) -> None:
        self.name = name  # as messages say it, without credentials
        self._folder = folder
        with self._told():
            self._files = connect()

    def first(self) -> str | None:
        """Return a file that shows that a folder is no new store; None if the folder counts as empty, or for a bucket."""
        if self._folder is None:
            return None
        with self._told():
            return min((path.name for path in self._folder.iterdir() if not _may_be_empty_with(path.name)), default=None)

    def look(self, key: str) -> Listed | None:
        """Return what is known of a file without reading it; None where there is none."""
        with self._told():
            if self._folder and not (self._folder / key).is_file():  # obstore would wait for who writes to a pipe
                return None
            try:
                return _listed(self._files.head(key))
            except FileNotFoundError:
                return None

    def listed(self, prefix: str) -> list[Listed]:
        """Return every file below a prefix."""
        with self._told():
            return [_listed(facts) for facts_of_some in self._files.list(prefix) for facts in facts_of_some]

    def cut_off(self) -> list[Listed]:
        """Return the files that senders to a folder did not finish, which `listed` leaves out; a bucket shows none."""
        if self._folder is None:
            return []
        with self._told():
            older = (self._folder / INCOMING).glob("*")
            paths = [path for path in self._folder.rglob("*#*") if _UNFINISHED.search(path.name)]
            states = [(path, path.stat()) for path in (*paths, *older) if path.is_file()]
            return [
                Listed(
                    key=path.relative_to(self._folder).as_posix(),
                    size_bytes=state.st_size,
                    modified_at=datetime.fromtimestamp(state.st_mtime, UTC),
                )
                for path, state in states
            ]

    def read(self, key: str, size_bytes: int) -> Iterator[bytes]:
        """Yield the first bytes of a file, no more than asked for, in blocks."""
        for start in range(0, size_bytes, _BLOCK_BYTES):
            with self._told():
                block = self._files.get_range(key, start=start, end=min(start + _BLOCK_BYTES, size_bytes)).to_bytes()
            yield block

    def put(self, key: str, content: Path | bytes | Iterator[bytes]) -> None:
        """Write a file so that it appears whole or not at all; one that is there is replaced."""
        with self._told():
            if isinstance(content, Path) and content.stat().st_size > _PART_BYTES:
                content = _blocks(content)  # between which Ctrl-C is heard
            self._files.put(key, content, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    def remove(self, key: str) -> None:
        """Remove a file, which need not be there."""
        with self._told():
            if self._folder:  # obstore takes no key of a file that is not finished
                (self._folder / key).unlink(missing_ok=True)
                return
            with suppress(FileNotFoundError):
                self._files.delete(key)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what obstore or the file system says into an error that names the place."""
        try:
            if self._folder:
                os.stat(f"{self._folder}/.")  # noqa: PTH116  (pathlib drops the dot, which refuses a file)
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of obstore's Rust code
                raise
            hint = self._hint(_number(error))
            raise StorageError(f"the store '{self.name}' cannot be used: {_reason(error)}", hint=hint) from error

    def _hint(self, number: int | None) -> str:
        if self._folder is None:
            return "see that $QUADBENCH_STORE is right, and the credentials and the region in the service's own variables"
        if number in _FULL:
            return "make room there; quadbench store collect removes what nobody needs any more"
        if number == errno.ENOENT and not os.path.exists(self._folder):  # noqa: PTH110  (it raises nothing)
            return "make it, or mount it"
        return "see that $QUADBENCH_STORE is right, and that this user may use it"


def _may_be_empty_with(name: str) -> bool:
    """Say whether a name is of what a file system or a writer that was cut off leaves in an empty folder."""
    return name in (INCOMING, "lost+found") or name.startswith(".") or bool(_UNFINISHED.search(name))


def _listed(facts: "ObjectMeta") -> Listed:
    return Listed(key=facts["path"], size_bytes=facts["size"], modified_at=facts["last_modified"])


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_PART_BYTES):
            yield block


def _number(error: BaseException) -> int | None:
    """Return the errno of an error, or the one that obstore writes into its message; None without either."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    number = re.search(r"\(os error ([0-9]+)\)", str(error))
    return int(number[1]) if number else None


def _reason(error: BaseException) -> str:
    """Return why something failed, in a line without credentials: the innermost cause, then the request."""
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
    return masked_in(" ".join(said.split()))[:_MOST_CHARACTERS].rstrip(".")
