"""Reading of files and JSON from paths that a user gave, up to a size limit. Errors name the file."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from pydantic_core import ValidationError, from_json

from quadbench.errors import QuadbenchError

MAX_PATH_BYTES, _MAX_PART_BYTES = 4095, 255  # Linux's PATH_MAX, without its final zero, and NAME_MAX
MAX_BYTES = 64 * 2**20  # the most bytes of a data file: a hundred times quadbench's own largest
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Pipes, devices and folders are refused at once, so the call never blocks.

    Raises:
        OSError: the file is missing, not readable or not a regular file.
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
        raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'not a file')}, expected a regular file", str(path))


def require_regular_file(path: Path, what: str, *, fault: type[QuadbenchError], hint: str | None = None) -> None:
    """Raise an error unless a path is a readable regular file, without opening the file. `what` names the file in the error.

    Use this for files that this process may have locked: closing any descriptor of a file releases all of its locks.

    Raises:
        QuadbenchError: of the class `fault`, with the reason.
    """
    try:
        _require_regular(path, path.stat())
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise fault(f"{what} '{path}' cannot be read: {reason}", hint=hint) from error


def is_file(path: Path) -> bool:
    """Return whether a path is a regular file. Return False if the path cannot be looked up, for example as it is too long."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def require_inside(path: Path, folder: Path, *, fault: type[QuadbenchError]) -> None:
    """Raise an error unless a path, with symbolic links resolved, lies inside a folder.

    Raises:
        QuadbenchError: of the class `fault`, naming path and folder.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise fault(f"'{path}' leads out of '{folder}'; expected a file in that folder")


def fits_file_system(path: Path) -> bool:
    """Return whether a path is short enough for a file system. The path need not exist."""
    sizes = [len(part.encode(errors="replace")) for part in path.parts]
    whole = len(str(path).encode(errors="replace"))
    return "\0" not in str(path) and whole <= MAX_PATH_BYTES and max(sizes, default=0) <= _MAX_PART_BYTES


def require_file(
    path: Path, what: str, *, fault: type[QuadbenchError], hint: str | None = None, max_bytes: int | None = None
) -> None:
    """Raise an error unless a path is a readable regular file of at most `max_bytes`. `what` names the file in the error.

    Raises:
        QuadbenchError: of the class `fault`, with the reason.
    """
    try:
        with open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise fault(f"{what} '{path}' cannot be read: {error.strerror}", hint=hint) from error
    if max_bytes is not None and size_bytes > max_bytes:
        raise fault(f"{what} '{path}' has {size_bytes} bytes; expected at most {max_bytes}", hint=hint)


def read_file(path: Path, *, fault: type[QuadbenchError], hint: str | None = None, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file as bytes. A file of more than `max_bytes` bytes is an error.

    Raises:
        QuadbenchError: of the class `fault`: the file is missing, not a regular file, or too large.
    """
    try:
        with open_regular(path) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise fault(f"'{path}' cannot be read: {error.strerror}", hint=hint) from error
    if len(content) > max_bytes:
        raise fault(f"'{path}' has {path.stat().st_size} bytes; expected at most {max_bytes}", hint=hint)
    return content


def read_json(path: Path, *, fault: type[QuadbenchError], hint: str | None = None) -> Any:
    """Parse a JSON file into Python values. NaN, infinities and nesting of more than 200 levels are errors.

    Raises:
        QuadbenchError: of the class `fault`: as for `read_file`, or the content is not JSON.
    """
    content = read_file(path, fault=fault, hint=hint)
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error).replace("recursion limit exceeded", "nested too deeply")
        raise fault(f"'{path}' is not JSON: {reason}", hint=hint) from error


def first_problem(error: ValidationError) -> str:
    """Return the first error of a pydantic validation as one line of text, such as `graphs.0.variant: reason`."""
    problem = error.errors(include_url=False)[0]
    reason = problem["msg"].removeprefix("Value error, ")
    return ": ".join(part for part in (".".join(map(str, problem["loc"])), reason) if part)
