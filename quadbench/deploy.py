"""Deploy files to a device under their sha256 as name. A file that is already intact on the device is not sent again.

On the device each file lies once, at `<root>/objects/<sha256>`. A file is sent under a temporary name, checked, then renamed.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import MIB, Deployment
from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.errors import ArtifactError, DeviceError, DeviceFullError, DeviceLostError

_REBUILD = "remove the bundle's folder and run again, which builds the bundle again"
BLOCK_BYTES = 4096  # a file occupies whole blocks
LIST_TIMEOUT_S = 60.0
CHANGE_TIMEOUT_S = 60.0
CHECK_BYTES_PER_S = 10 * MIB  # slower than any phone's sha256sum
TEMPORARY = ".tmp-"
NAMES_PER_COMMAND = 400  # a command has at most 64 KB, a name 64 characters

# $1: the objects folder. Temporary files are left over from interrupted deployments. A folder with an object's name would
# swallow the object that is moved to that name. So everything that is not a regular file is printed as `./NAME` and removed.
_LIST = (
    'mkdir -p "$1" && cd "$1" && rm -rf .tmp-* && find . -mindepth 1 -maxdepth 1 ! -type f -print -exec rm -rf {} + && '
    'set -- * && if [ -e "$1" ]; then stat -c "%s %a %n" "$@"; fi'
)
_READ_ONLY = "Read-only file system"  # the text for EROFS in every C library
_CHECK = 'cd "$1" && shift && sha256sum "$@"'
_MARK = 'cd "$1" && shift && chmod 755 "$@"'
_PUBLISH = 'cd "$1" && for name in .tmp-*; do [ ! -e "$name" ] || mv -f "$name" "${name#.tmp-}" || exit 1; done'
_CLEAN = 'cd "$1" && rm -f .tmp-*'

Progress = Callable[[int, int], None]  # bytes sent so far, bytes to send

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A local file to deploy to a device, with its sha256 and size."""

    path: Path
    sha256: str
    size_bytes: int
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class _Object:
    """A file in the device's folder `objects`: its size, and whether it is executable. The file's name is its sha256."""

    size_bytes: int
    is_executable: bool


def deploy(files: Sequence[LocalFile], device: Device, *, progress: Progress | None = None) -> Deployment:
    """Send files that are missing or damaged on the device. Return a Deployment, with a dict from each sha256 to a device path.

    Other files on the device stay. A file there is intact if its size and sha256 match. A failed deployment removes its temporary
    files; if the device is lost, the next deployment removes them.

    Raises:
        ArtifactError: a local file is missing or differs from its manifest.
        DeviceFullError: there is too little free space.
        DeviceLostError: the device went away.
        DeviceError: a file arrived damaged, or a command failed on the device.
    """
    started = time.monotonic()
    needed = _by_digest(files)
    folder = f"{device.root}/objects"
    present = _list(device, folder)
    missing = _missing(device, folder, needed.values(), present)
    _check_space(device, folder, missing)
    _send(device, folder, missing, progress)
    marked = {name for name, there in present.items() if there.is_executable}.difference(file.sha256 for file in missing)
    unmarked = [file.sha256 for file in needed.values() if file.executable and file.sha256 not in marked]
    for start in range(0, len(unmarked), NAMES_PER_COMMAND):
        _command(device, _MARK, folder, *unmarked[start : start + NAMES_PER_COMMAND], timeout_s=CHANGE_TIMEOUT_S)
    sent_bytes = sum(file.size_bytes for file in missing)
    present_bytes = sum(file.size_bytes for file in needed.values()) - sent_bytes
    log.info("deployed to %s: %d bytes sent, %d bytes already there", device.facts.address, sent_bytes, present_bytes)
    return Deployment(
        device=device.facts,
        root=device.root,
        objects={sha256: f"{folder}/{sha256}" for sha256 in needed},
        sent_bytes=sent_bytes,
        present_bytes=present_bytes,
        seconds=time.monotonic() - started,
    )


def space_bytes(files: Iterable[LocalFile]) -> int:
    """Return how many bytes the files take on a device. Equal files count once; each size is rounded up to 4096-byte blocks."""
    sizes = {file.sha256: file.size_bytes for file in files}
    return sum(-(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES for size_bytes in sizes.values())


def _by_digest(files: Iterable[LocalFile]) -> dict[str, LocalFile]:
    """Return a dict from sha256 to LocalFile. If files have equal content, keep an executable one, or else the first."""
    needed: dict[str, LocalFile] = {}
    for file in files:
        if not file.path.is_file():
            raise ArtifactError(f"{file.path} is missing", hint=_REBUILD)
        if (size_bytes := file.path.stat().st_size) != file.size_bytes:
            raise ArtifactError(f"{file.path} has {size_bytes} bytes; the manifest says {file.size_bytes}", hint=_REBUILD)
        if file.sha256 not in needed or file.executable:
            needed[file.sha256] = file
    return needed


def _list(device: Device, folder: str) -> dict[str, _Object]:
    """Delete temporary and non-regular files in a device folder. Return the rest as a dict from sha256 (name) to _Object."""
    lines = _command(device, _LIST, folder, timeout_s=LIST_TIMEOUT_S).splitlines()
    for name in (line for line in lines if line.startswith("./")):
        log.warning("%s was not a regular file on %s and was removed", one_line(f"{folder}/{name[2:]}"), device.facts.address)
    rows = (re.fullmatch(r"(\d{1,18}) ([0-7]{1,6}) ([0-9a-f]{64})", line) for line in lines)
    return {row[3]: _Object(size_bytes=int(row[1]), is_executable=bool(int(row[2], 8) & 0o100)) for row in rows if row}


def _missing(device: Device, folder: str, needed: Iterable[LocalFile], present: Mapping[str, _Object]) -> list[LocalFile]:
    """Return the files that are absent or damaged on the device. Only files whose size is right are hashed on the device."""
    files = list(needed)
    sized = [f for f in files if f.sha256 in present and present[f.sha256].size_bytes == f.size_bytes]
    contents = _contents(device, folder, sized)
    for file in sized:
        if contents.get(file.sha256) != file.sha256:
            log.warning("%s was damaged on %s and is sent again", file.path.name, device.facts.address)
    return [file for file in files if contents.get(file.sha256) != file.sha256]


def _contents(device: Device, folder: str, files: Sequence[LocalFile], prefix: str = "") -> dict[str, str]:
    """Return a dict from the sha256 in a device file's name (after `prefix`) to its content's sha256. Omit absent files."""
    contents: dict[str, str] = {}
    line = re.compile(rf"^([0-9a-f]{{64}}) [ *]{re.escape(prefix)}([0-9a-f]{{64}})$", re.MULTILINE)
    for start in range(0, len(files), NAMES_PER_COMMAND):
        portion = files[start : start + NAMES_PER_COMMAND]
        timeout_s = CHANGE_TIMEOUT_S + sum(file.size_bytes for file in portion) / CHECK_BYTES_PER_S
        output = _command(device, _CHECK, folder, *(prefix + file.sha256 for file in portion), timeout_s=timeout_s)
        contents |= {name: sha256 for sha256, name in line.findall(output)}
    return contents


def _check_space(device: Device, folder: str, missing: Sequence[LocalFile]) -> None:
    need_bytes = space_bytes(missing)
    if need_bytes and (free_bytes := device.free_bytes(folder)) < need_bytes:
        needed = f"{free_bytes / MIB:.1f} MB free in {folder}; the files need {need_bytes / MIB:.1f} MB"
        raise DeviceFullError(
            f"device '{device.facts.address}' has {needed}",
            hint=f"make room there; files below {device.root} may be deleted, they are sent again when needed",
        )


def _send(device: Device, folder: str, missing: Sequence[LocalFile], progress: Progress | None) -> None:
    if not missing:
        return
    try:
        _push_all(device, folder, missing, progress)
        arrived = _contents(device, folder, missing, TEMPORARY)
        for file in missing:
            if arrived.get(file.sha256) != file.sha256:
                raise _wrong_content(device, file, arrived.get(file.sha256))
        _command(device, _PUBLISH, folder, timeout_s=CHANGE_TIMEOUT_S)
    except DeviceLostError:
        raise
    except BaseException:
        try:
            _command(device, _CLEAN, folder, timeout_s=CHANGE_TIMEOUT_S)
        except DeviceError as error:  # it is only logged: the user must see the failure that led here
            log.warning("temporary files remain until the next deployment: %s", error)
        raise


def _push_all(device: Device, folder: str, missing: Sequence[LocalFile], progress: Progress | None) -> None:
    total_bytes = sum(file.size_bytes for file in missing)
    done_bytes = 0

    def report(sent_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes = sent_bytes
        if progress:
            progress(sent_bytes, total_bytes)

    try:
        device.push({f"{folder}/{TEMPORARY}{file.sha256}": file.path for file in missing}, report)
    except DeviceLostError as error:
        sent = f"{done_bytes / MIB:.1f} of {total_bytes / MIB:.1f} MB were sent"
        raise DeviceLostError(f"{error.message} ({sent})", transient=error.transient, hint=error.hint) from error
    except OSError as error:
        raise ArtifactError(f"'{error.filename or 'a local file'}' cannot be read: {error.strerror}", hint=_REBUILD) from error


def _wrong_content(device: Device, file: LocalFile, arrived: str | None) -> ArtifactError | DeviceError:
    with file.path.open("rb") as content:
        local = hashlib.file_digest(content, "sha256").hexdigest()
    if local != file.sha256:
        return ArtifactError(f"{file.path} has sha256 {local}; the manifest says {file.sha256}", hint=_REBUILD)
    return DeviceError(
        f"{file.path.name} arrived on device '{device.facts.address}' with sha256 {arrived or 'unknown'}; expected {file.sha256}",
        hint="run again; if it happens again, try another cable or port",
    )


def _command(device: Device, script: str, *arguments: str, timeout_s: float) -> str:
    result = device.shell(["sh", "-c", script, "sh", *arguments], timeout_s)
    if result.exit_code:
        last = " / ".join(result.stderr.splitlines()[-3:]) or "nothing on stderr"
        raise DeviceError(
            f"'{script}' ended with exit code {result.exit_code} on device '{device.facts.address}': {last}",
            hint="restart the device, or make its file system writable" if _READ_ONLY in last else None,
        )
    return result.stdout
