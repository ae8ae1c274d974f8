"""Files: a path that somebody gave -> the bytes or the JSON there, read within bounds, or an error that names the file."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from pydantic_core import ValidationError, from_json

from quadbench.errors import QuadbenchError

LONGEST_PATH_BYTES, _LONGEST_PART_BYTES = 4095, 255  # Linux's PATH_MAX, without its final zero, and NAME_MAX
MOST_BYTES = 64 * 2**20  # of a file of data: a hundred times the largest that quadbench writes
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file to be read. Nothing else is waited for: a pipe, a device or a folder is refused at once.

    Raises:
        OSError: there is no such file, it may not be read, or it is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        _require_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(path: Path, state: os.stat_result) -> None:
    kind = stat.S_IFMT(state.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'no file')}, expected a regular file", str(path))


def require_unopened(path: Path, what: str, *, fault: type[QuadbenchError], hint: str | None = None) -> None:
    """Refuse what is no regular file, without opening it. `what` names it.

    For files on which this process may have locks: where it closes any descriptor of such a file, the kernel drops them all.

    Raises:
        QuadbenchError: a `fault`, which says why.
    """
    try:
        _require_regular(path, path.stat())
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise fault(f"{what} '{path}' cannot be read: {reason}", hint=hint) from error


def is_file(path: Path) -> bool:
    """Say whether a regular file lies there; a path that no file system takes is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def require_inside(path: Path, folder: Path, *, fault: type[QuadbenchError]) -> None:
    """Refuse a path that links lead out of a folder.

    Raises:
        QuadbenchError: a `fault`, which names both.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise fault(f"'{path}' leads out of '{folder}'; expected a file of that folder")


def fits_file_system(path: Path) -> bool:
    """Say whether a file system takes such a path, whether or not something lies there."""
    sizes = [len(part.encode(errors="replace")) for part in path.parts]
    whole = len(str(path).encode(errors="replace"))
    return "\0" not in str(path) and whole <= LONGEST_PATH_BYTES and max(sizes, default=0) <= _LONGEST_PART_BYTES


def require_file(
    path: Path, what: str, *, fault: type[QuadbenchError], hint: str | None = None, most_bytes: int | None = None
) -> None:
    """Refuse what cannot be read as a file, or is larger than `most_bytes`. `what` names it, as `foundation model`.

    Raises:
        QuadbenchError: a `fault`, which says why.
    """
    try:
        with open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise fault(f"{what} '{path}' cannot be read: {error.strerror}", hint=hint) from error
    if most_bytes is not None and size_bytes > most_bytes:
        raise fault(f"{what} '{path}' has {size_bytes} bytes; expected at most {most_bytes}", hint=hint)


def read_file(path: Path, *, fault: type[QuadbenchError], hint: str | None = None, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file, which is no larger than `most_bytes`.

    Raises:
        QuadbenchError: a `fault`: the file is missing, no regular file or too large.
    """
    try:
        with open_regular(path) as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise fault(f"'{path}' cannot be read: {error.strerror}", hint=hint) from error
    if len(content) > most_bytes:
        raise fault(f"'{path}' has {path.stat().st_size} bytes; expected at most {most_bytes}", hint=hint)
    return content


def read_json(path: Path, *, fault: type[QuadbenchError], hint: str | None = None) -> Any:
    """Return the content of a JSON file. NaN and infinities are no JSON, and nesting is bounded by the parser, at 200 levels.

    Raises:
        QuadbenchError: a `fault`: as `read_file`, or the content is no JSON.
    """
    content = read_file(path, fault=fault, hint=hint)
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error).replace("recursion limit exceeded", "nested too deeply")
        raise fault(f"'{path}' is not JSON: {reason}", hint=hint) from error


def first_problem(error: ValidationError) -> str:
    """Return the first thing that pydantic objects to, as `graphs.0.variant: reason`, on one line."""
    problem = error.errors(include_url=False)[0]
    reason = problem["msg"].removeprefix("Value error, ")
    return ": ".join(part for part in (".".join(map(str, problem["loc"])), reason) if part)
