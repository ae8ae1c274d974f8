"""Copying the shared libraries of one ABI out of archives (AAR, wheel, zip), folders and files that a user provides.

Archives may be hostile: no name in an archive becomes a path on this machine, and reading is bounded.
"""

import errno
import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from quadbench.artifacts import MIB, FileRef
from quadbench.artifacts.kit import Origin, Role, is_library_name, role_of
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import UserError, quote
from quadbench.results.digests import sha256_of
from quadbench.spec.files import is_file, open_regular, require_file
from quadbench.target.abi import Abi

MAX_MEMBERS = 20_000
MAX_LIBRARIES = 200  # Qualcomm's SDK has about a hundred for one ABI
MAX_BYTES = 2048 * MIB  # the most bytes of all libraries of a kit
_MAX_ARCHIVE_BYTES = 4 * MAX_BYTES  # archives also hold libraries of other ABIs
_MAX_DIRECTORY_BYTES = 16 * MIB  # the most bytes of a zip file's central directory
_MAX_METADATA_BYTES = MIB
_COPY_BYTES = MIB
_MAX_NAME_LENGTH = 200
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # a bit of a file's flags
_ZIP_ENDINGS = (".aar", ".whl", ".zip")
_FOLDERS = {  # the folder names of each ABI in AARs and in Qualcomm's SDK
    Abi.ARM64_V8A: re.compile(r"arm64-v8a|aarch64-android"),
    Abi.ARM64_LINUX: re.compile(r"aarch64-(oe-linux|ubuntu)-gcc[0-9.]+"),
    Abi.X86_64_LINUX: re.compile(r"x86_64-linux-clang"),
}
_HEXAGON_FOLDER = re.compile(r"hexagon-v[0-9]{2}")
_DSP_LIBRARY = re.compile(r"libc\+\+(abi)?\.so(\.1)?")  # the C++ library of Qualcomm's DSP, which skels need
# Exceptions of zipfile for damaged archives. It also raises OSError, for offsets before the beginning of the file.
ZIP_FAULTS = (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OverflowError, IndexError, struct.error, zlib.error)


@dataclass(frozen=True, kw_only=True)
class SourceContent:
    """The shared libraries from a user's file or folder, as a dict from name to FileRef. `origin` describes their source."""

    origin: Origin
    libraries: dict[str, FileRef]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in a user's archive or folder. `path` is relative to the archive or folder; `open()` returns a binary stream."""

    path: PurePosixPath
    size_bytes: int
    open: Callable[[], IO[bytes]]


def extract_libraries(sources: Iterable[Path], abi: Abi, folder: Path) -> list[SourceContent]:
    """Copy an ABI's libraries from AARs, wheels, zips, folders and .so files to `folder`. Return one SourceContent per source."""
    contents: list[SourceContent] = []
    for source in sources:
        taken = sum(file.size_bytes for content in contents for file in content.libraries.values())
        contents.append(_content_of(source, abi, folder, MAX_BYTES - taken))
    return contents


def _content_of(source: Path, abi: Abi, folder: Path, max_bytes: int) -> SourceContent:
    if os.path.isdir(source):  # noqa: PTH112  (it raises nothing)
        libraries = _copied(source, _walked(source), abi, folder, max_bytes)
        return SourceContent(origin=Origin(name=_shown_name(source), sha256=None), libraries=libraries)
    hint = "pass AARs, wheels, zip files, folders or .so files"
    require_file(source, "kit file", fault=UserError, hint=hint, max_bytes=_MAX_ARCHIVE_BYTES)
    if is_library_name(source.name):
        libraries = _copied(source, [_plain(source, source.name)], abi, folder, max_bytes)
        return SourceContent(origin=Origin(name=_shown_name(source), sha256=libraries[source.name].sha256), libraries=libraries)
    if source.suffix not in _ZIP_ENDINGS:
        known = f"*{', *'.join(_ZIP_ENDINGS)}, lib*.so or a folder"
        raise UserError(f"'{source}' cannot be part of a kit; expected {known}")
    with _reading(source):
        sha256 = sha256_of(source)
    with _zip_members(source) as members:
        origin = Origin(name=_shown_name(source), sha256=sha256, licence=_licence(members))
        return SourceContent(origin=origin, libraries=_copied(source, members, abi, folder, max_bytes))


def _copied(source: Path, members: Iterable[Member], abi: Abi, folder: Path, max_bytes: int) -> dict[str, FileRef]:
    chosen = _of_abi([member for member in members if is_library_name(member.path.name)], abi)
    if len(chosen) > MAX_LIBRARIES:
        raise UserError(f"'{source}' contains {len(chosen)} libraries for {abi}; expected at most {MAX_LIBRARIES}")
    if sum(member.size_bytes for member in chosen) > max_bytes:  # the declared sizes; real ones are counted below
        raise _too_large(source)
    libraries: dict[str, FileRef] = {}
    left_bytes = max_bytes
    for member in chosen:
        name = member.path.name
        with member.open() as file:
            copied = _copy(source, file, folder, left_bytes)
        left_bytes -= copied.size_bytes
        if libraries.setdefault(name, copied) != copied:
            which = f"for {abi}" if _is_of_abi(member, abi) else f"and no folder for {abi}"
            hint = "pass only the folder or files that you want"
            raise UserError(f"'{source}' has two different libraries '{name}' {which}", hint=hint)
    return libraries


def _too_large(source: Path) -> UserError:
    which = f"the libraries in '{source}' and in the files before it"
    return UserError(f"{which} exceed {MAX_BYTES} bytes, the limit for a kit")


def _of_abi(members: list[Member], abi: Abi) -> list[Member]:
    """Return the Members in folders of an ABI, and in Hexagon folders skels and their C++ library. Without the first, all."""
    is_named = [_is_of_abi(member, abi) for member in members]
    if not any(is_named):
        return members
    is_for_dsp = [
        (role_of(m.path.name) is Role.SKEL or _DSP_LIBRARY.fullmatch(m.path.name) is not None)
        and any(_HEXAGON_FOLDER.fullmatch(part) for part in m.path.parts[:-1])
        for m in members
    ]
    return [member for member, *reasons in zip(members, is_named, is_for_dsp, strict=True) if any(reasons)]


def _is_of_abi(member: Member, abi: Abi) -> bool:
    """Return whether a file is in a folder that is named for an ABI."""
    return any(_FOLDERS[abi].fullmatch(part) for part in member.path.parts[:-1])


def _copy(source: Path, file: IO[bytes], folder: Path, max_bytes: int) -> FileRef:
    """Copy an open library file into `folder`, named by its SHA-256. Return the copy's FileRef. Error messages name `source`."""
    digest, size_bytes, temporary = hashlib.sha256(), 0, folder / "incoming"
    with temporary.open("wb") as copy:
        while part := _part(source, file):
            size_bytes += len(part)
            if size_bytes > max_bytes:
                raise _too_large(source)
            digest.update(part)
            copy.write(part)
    place = temporary.replace(folder / digest.hexdigest())
    return FileRef(path=place.name, sha256=place.name, size_bytes=size_bytes)


def _part(source: Path, file: IO[bytes]) -> bytes:
    with _reading(source):
        return file.read(_COPY_BYTES)


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn an OSError in a `with` block into a UserError that says `source` cannot be read. The block must read only `source`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"'{source}' cannot be read: {error.strerror}") from error


def _plain(place: Path, path: str) -> Member:
    """Return a Member to read the local file `place`. `path` is relative to the user's folder, or the name of a single file."""

    def opened() -> IO[bytes]:
        with _reading(place):
            return open_regular(place)

    with _reading(place):
        return Member(path=PurePosixPath(path), size_bytes=place.stat().st_size, open=opened)


def _walked(folder: Path) -> Iterator[Member]:
    """Yield a Member for each regular file named like `libx.so` or `libx.so.1` in a folder tree. Do not follow folder links."""
    count = 0
    for top, _, names in os.walk(folder):
        for name in sorted(names):
            count += 1
            if count > MAX_MEMBERS:
                raise UserError(f"'{folder}' contains more than {MAX_MEMBERS} files", hint="pass the folder of the libraries")
            place = Path(top, name)
            if is_library_name(name) and is_file(place):
                yield _plain(place, place.relative_to(folder).as_posix())


@contextmanager
def _zip_members(source: Path) -> Iterator[list[Member]]:
    """Open a zip file for a `with` block, and yield a list of its files as Members. Raise UserError if the zip is damaged."""
    try:
        with open_regular(source) as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
                if len(infos) > MAX_MEMBERS:
                    raise zipfile.BadZipFile(f"it contains {len(infos)} files; expected at most {MAX_MEMBERS}")
                if any(info.compress_type not in _COMPRESSIONS for info in infos):
                    raise zipfile.BadZipFile("it has files with an unsupported compression; expected deflate")

                if any(info.flag_bits & _ENCRYPTED for info in infos):
                    raise UserError(f"'{source}' is encrypted; expected an archive without a password", hint="pass it unpacked")

                def member(info: zipfile.ZipInfo) -> Member:
                    return Member(path=PurePosixPath(info.filename), size_bytes=info.file_size, open=lambda: archive.open(info))

                yield list(map(member, infos))
    except (*ZIP_FAULTS, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise UserError(f"'{source}' cannot be read as an archive: {one_line(str(error))}", hint="download it again") from error


def _check_directory(file: IO[bytes]) -> None:
    """Raise BadZipFile if an open file is not a zip, or its central directory is in ZIP64 format or larger than 16 MiB."""
    end = file.seek(0, os.SEEK_END)
    tail_bytes = min(end, 22 + 65535 + 20)  # end record, longest comment, and the ZIP64 locator before it
    file.seek(end - tail_bytes)
    tail = file.read(tail_bytes)
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        raise zipfile.BadZipFile("it is not a zip file")
    (size_bytes,) = struct.unpack_from("<I", tail, at + 12)
    if size_bytes > _MAX_DIRECTORY_BYTES or tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise zipfile.BadZipFile(f"its central directory is larger than {_MAX_DIRECTORY_BYTES} bytes, or in ZIP64 format")


def _licence(members: Iterable[Member]) -> str | None:
    """Return the licence named in a wheel's metadata; None if there is none."""
    for member in members:
        if member.path.name == "METADATA" and member.path.parent.name.endswith(".dist-info"):
            with member.open() as file:
                text = file.read(_MAX_METADATA_BYTES).decode(errors="replace")
            named = re.search(r"^License(?:-Expression)?: (\S.*)$", text.partition("\n\n")[0], re.MULTILINE)
            return one_line(named[1], most=_MAX_NAME_LENGTH) if named else None
    return None


def _shown_name(source: Path) -> str:
    return one_line(quote(source.resolve().name)[1:-1])
