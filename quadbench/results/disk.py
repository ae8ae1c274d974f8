"""Disk: write files below a results folder whole, and say what is wrong with the folder where that fails."""

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
_NOTHING_LEFT_BYTES = 2 * MIB  # so little that a library that failed in writing has failed for this
_SPACE_HINT = "make room there, or keep results elsewhere with --results; results/README.md says what may be deleted"
_PLACE_HINT = "give a folder that this user may write to, with --results"


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn failures to write below a folder into a StorageError that names the folder.

    Python says so by an OSError. Libraries that write files say it in ways of their own, so whatever fails where the file system
    has no space left, or cannot be written, fails for that.

    Raises:
        StorageError: the folder is full, cannot be written, or is none.
    """
    try:
        yield
    except OSError as error:
        if fault := storage_fault(error, folder):
            raise fault from error
        raise
    except Exception as error:
        is_on_purpose = isinstance(error, QuadbenchError) and not isinstance(error, BuildError)
        says_so = os.strerror(errno.ENOSPC) in str(error)
        if is_on_purpose:
            raise
        if says_so or free_bytes(folder) < _NOTHING_LEFT_BYTES:
            raise _full(folder, str(error)) from error
        require_writable(folder)
        raise


def write_whole(path: Path, text: str, *, end: str = "\n", makes_folders: bool = True) -> None:
    """Write a file of text whole or not at all, also where another process writes the same.

    Raises:
        StorageError: there is no space left, or the folder cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with storing(path.parent):
            if makes_folders:
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(f"{text}{end}", encoding="utf-8")
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def staying(folder: Path) -> Iterator[None]:
    """Say so where a folder that is there now is not at the end: what failed has failed for that, the rest lies elsewhere.

    Raises:
        StorageError: the folder was moved or removed, also where another lies in its place by now.
    """
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
            hint="put it back and run again; what was stored before is in it",
        ) from failure
    if failure:
        raise failure


def storage_fault(error: OSError, folder: Path) -> StorageError | None:
    """Return what is wrong with the folder where that is why writing failed; None for any other failure."""
    place = Path(os.fsdecode(error.filename)) if error.filename else None
    if error.errno in _FULL:
        return _full(folder, str(error))
    if place is None or not _is_below(place, folder):
        return None
    if error.errno in (*_CLOSED, *_BROKEN) or not os.path.isdir(folder):  # noqa: PTH112  (it raises nothing)
        return StorageError(f"'{folder}' cannot be written: {error.strerror}: '{place}'", hint=_PLACE_HINT)
    return None


def require_writable(folder: Path) -> None:
    """Refuse a folder, or the first one above it that is there, in which nothing can be written: before long work, not after it.

    Raises:
        StorageError: the folder cannot be written, or is none.
    """
    place = _nearest(folder)
    if not place.is_dir():
        raise StorageError(f"'{folder}' cannot be written: '{place}' is no folder", hint=_PLACE_HINT)
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"'{folder}' cannot be written: '{place}' is read-only for this user", hint=_PLACE_HINT)


def require_folder(folder: Path) -> None:
    """Refuse a results folder that is there and is none.

    Raises:
        StorageError: it is a file.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):  # noqa: PTH110, PTH112  (they raise nothing)
        raise StorageError(f"'{folder}' is a file; expected a folder in which results are kept", hint=_PLACE_HINT)


def free_bytes(folder: Path) -> int:
    """Return the bytes that are left to this user on the file system of a folder, which need not be there yet."""
    return shutil.disk_usage(_nearest(folder)).free


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another of its name; None where there is none."""
    try:
        state = os.stat(folder)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino


def _nearest(folder: Path) -> Path:
    """Return the folder, or the first one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))  # noqa: PTH110  (it raises nothing)


def _full(folder: Path, reason: str) -> StorageError:
    left = f"{free_bytes(folder) / MIB:.1f} MB are left"
    return StorageError(f"the file system of '{folder}' is full, {left}: {reason.rstrip('.')}", hint=_SPACE_HINT)


def _is_below(place: Path, folder: Path) -> bool:
    """Say whether a place lies below a folder, or is one of the folders above it, which are made with it."""
    place, folder = place.absolute(), folder.absolute()
    return place.is_relative_to(folder) or folder.is_relative_to(place)
