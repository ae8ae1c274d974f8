"""Atomic writes below a results folder, and errors that explain why the folder cannot be written."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quadbench.artifacts import MIB
from quadbench.errors import BuildError, QuadbenchError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_BROKEN = (errno.EIO, errno.ESTALE)
_NOTHING_LEFT_BYTES = 2 * MIB  # free space below which a library's failed write is blamed on a full disk
_SPACE_HINT = "free space there, or choose another folder with --results; results/README.md lists what may be deleted"
_PLACE_HINT = "choose a folder with --results that this user can write to"


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn an error in a `with` block into a StorageError if its cause is that `folder` is full or cannot be written.

    Python raises OSError. Libraries raise errors of their own, so any failure counts while the disk is full or read-only.

    Raises:
        StorageError: the folder is full, cannot be written, or is not a folder.
    """
    try:
        yield
    except OSError as error:
        if fault := storage_fault(error, folder):
            raise fault from error
        raise
    except Exception as error:
        if isinstance(error, QuadbenchError) and not isinstance(error, BuildError):  # raised on purpose
            raise
        if os.strerror(errno.ENOSPC) in str(error) or free_bytes(folder) < _NOTHING_LEFT_BYTES:
            raise _full(folder, str(error)) from error
        require_writable(folder)
        raise


def write_atomic(path: Path, text: str, *, end: str = "\n", makes_folders: bool = True) -> None:
    """Write a text file atomically, so that readers never see half of it. If processes write at once, the last one wins.

    Raises:
        StorageError: there is no space left, or the folder cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with storage_errors(path.parent):
            if makes_folders:
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(f"{text}{end}", encoding="utf-8")
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def removal_errors(folder: Path) -> Iterator[None]:
    """Raise StorageError after the `with` block if the folder was moved, removed or replaced during the block."""
    before = _identity(folder)
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if before is not None and _identity(folder) != before:
        reason = f": {failure.message if isinstance(failure, QuadbenchError) else failure}" if failure else ""
        raise StorageError(
            f"'{folder}' is gone: it was moved or removed while it was in use{reason}",
            hint="move the folder back and run again; earlier results are still in it",
        ) from failure
    if failure:
        raise failure


def storage_fault(error: OSError, folder: Path) -> StorageError | None:
    """Return a StorageError if a write failed because its folder is full, read-only or gone; None for any other cause."""
    place = Path(os.fsdecode(error.filename)) if error.filename else None
    if error.errno in _FULL:
        return _full(folder, str(error))
    root = folder.absolute()
    if place is None or not (place.absolute().is_relative_to(root) or root.is_relative_to(place.absolute())):
        return None
    if error.errno in (*_CLOSED, *_BROKEN) or not os.path.isdir(folder):  # noqa: PTH112  (it raises nothing)
        return StorageError(f"'{folder}' cannot be written: {error.strerror}: '{place}'", hint=_PLACE_HINT)
    return None


def require_writable(folder: Path) -> None:
    """Raise StorageError if a folder cannot be written. For a missing folder, check its nearest parent that exists."""
    place = _nearest(folder)
    if not place.is_dir():
        raise StorageError(f"'{folder}' cannot be written: '{place}' is not a folder", hint=_PLACE_HINT)
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"'{folder}' cannot be written: '{place}' is read-only for this user", hint=_PLACE_HINT)


def require_folder(folder: Path) -> None:
    """Raise StorageError if the path of a results folder exists but is not a folder."""
    if os.path.exists(folder) and not os.path.isdir(folder):  # noqa: PTH110, PTH112  (they raise nothing)
        raise StorageError(f"'{folder}' is a file; expected a folder for results", hint=_PLACE_HINT)


def free_bytes(folder: Path) -> int:
    """Return how many bytes this user may still write on the file system of a folder. The folder need not exist."""
    return shutil.disk_usage(_nearest(folder)).free


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return a folder's file system device number and inode, which together identify it. Return None if there is no folder."""
    try:
        state = os.stat(folder)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino


def _nearest(folder: Path) -> Path:
    """Return the folder if it exists, else its nearest parent that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))  # noqa: PTH110  (it raises nothing)


def _full(folder: Path, reason: str) -> StorageError:
    left = f"{free_bytes(folder) / MIB:.1f} MB are left"
    return StorageError(f"the file system of '{folder}' is full, {left}: {reason.rstrip('.')}", hint=_SPACE_HINT)
