"""Manifest: an artifact <-> `manifest.json` in its folder with its own checksum, and the folder complete or absent."""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from quadbench.artifacts import Bundle, CompiledBundle, FileRef, Stored
from quadbench.artifacts.kit import Kit
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import ArtifactError, StorageError, shown
from quadbench.host import folder_lock, is_locked
from quadbench.results.digests import sha256_of
from quadbench.results.disk import storing
from quadbench.results.documents import document_text, read_document
from quadbench.spec import is_file, read_file

MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"  # as `sha256sum -c` reads it
_NO_BUNDLE = "give the folder of a bundle, as results/bundles/<digest>; a recipe's own is built again when it is run"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
ArtifactT = TypeVar("ArtifactT", Bundle, CompiledBundle, Kit)

log = logging.getLogger(__name__)


def read_manifest(folder: Path, kind: type[ArtifactT]) -> Stored[ArtifactT]:
    """Read an artifact from its folder, and check its schema, its checksum, and that every file is there with its size.

    Contents of the other files are checked by whoever reads them, with `check_contents`, and where they are pushed.

    Raises:
        ArtifactError: names the file that is missing, cut, changed, of another schema, or named so that it would lie elsewhere.
    """
    path = folder / MANIFEST
    hint = _again(folder, kind) if kind is Kit or is_file(path) else _NO_BUNDLE
    artifact = read_document(path, kind, hint=hint)
    for file in file_refs(artifact):
        _check_size(folder, file, hint)
    checksum, expected = folder / CHECKSUM, _checksum(path)
    if (noted := read_file(checksum, fault=ArtifactError, hint=hint)) != expected:
        difference = f"found {shown(noted.decode(errors='replace'))}, expected {shown(expected.decode())}"
        raise ArtifactError(f"'{path}' or its checksum '{checksum}' was changed after it was written: {difference}", hint=hint)
    return Stored(artifact=artifact, folder=folder, is_reused=True)


def _checksum(manifest: Path) -> bytes:
    return f"{sha256_of(manifest)}  {manifest.name}\n".encode()


def _check_size(folder: Path, file: FileRef, hint: str) -> None:
    path = folder / file.path
    try:
        size_bytes = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror}", hint=hint) from error
    if size_bytes != file.size_bytes:
        state = "is missing" if size_bytes is None else f"has {size_bytes} bytes"
        raise ArtifactError(f"'{path}' {state}; expected {file.size_bytes} bytes", hint=hint)


def check_contents(stored: Stored[Bundle] | Stored[CompiledBundle] | Stored[Kit], files: Iterable[FileRef]) -> None:
    """Check that files of an artifact have the content under whose digest they are stored.

    Whoever reads files of an artifact, or passes them on under their digests, calls this first. A content that has not changed
    since is read once in a process, however often it is asked for.

    Raises:
        ArtifactError: names the first file that has another content.
    """
    hint = _again(stored.folder, type(stored.artifact))
    for file in dict.fromkeys(files):
        path = stored.path(file)
        try:
            state = path.stat()
            sha256 = _content(path, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
        except OSError as error:
            raise ArtifactError(f"'{path}' cannot be read: {error.strerror}", hint=hint) from error
        if sha256 != file.sha256:
            raise ArtifactError(
                f"'{path}' was changed after it was written: its sha256 is {sha256[:12]}..., expected {file.sha256[:12]}...",
                hint=hint,
            )


@cache
def _content(path: Path, state: tuple[int, ...]) -> str:
    """Return the digest of a file in that state, by which the kernel tells when it has been written to."""
    return sha256_of(path)


def _again(folder: Path, kind: type[Bundle] | type[CompiledBundle] | type[Kit]) -> str:
    """Return how to get an artifact of a kind again."""
    if kind is Kit:
        return f"quadbench runtime remove {folder.name}, then add or fetch it again"
    return f"remove {folder} and run again: it is built anew"


def read_whole(folder: Path, kind: type[ArtifactT]) -> Stored[ArtifactT]:
    """Read an artifact from its folder as `read_manifest` does, and check the contents of all its files.

    Raises:
        ArtifactError: as `read_manifest` and `check_contents`.
    """
    stored = read_manifest(folder, kind)
    check_contents(stored, file_refs(stored.artifact))
    return stored


def publish(folder: Path, make: Callable[[Path], ArtifactT]) -> Stored[ArtifactT]:
    """Let `make` fill a temporary folder, write its manifest and rename it to `folder`; after any failure nothing is left.

    Of processes that publish the same artifact at once the first one wins: one that is there and whole is kept and returned,
    since others may be reading it. Anything else that is there is replaced.
    """
    with temporary_folder(folder) as temporary:
        artifact = make(temporary)
        manifest = temporary / MANIFEST
        manifest.write_text(f"{document_text(artifact)}\n")
        (temporary / CHECKSUM).write_bytes(_checksum(manifest))
        with folder_lock(folder.parent):
            if kept := _kept(folder, artifact):
                return kept
            discard(folder)
            temporary.rename(folder)
    return Stored(artifact=artifact, folder=folder)


def _kept(folder: Path, artifact: ArtifactT) -> Stored[ArtifactT] | None:
    """Return the same artifact as it lies in the folder already; None if it does not, or is damaged, which is said."""
    if not os.path.lexists(folder):
        return None
    try:
        stored = read_whole(folder, type(artifact))
    except ArtifactError as error:
        log.warning("%s; it is replaced", error.message)
        return None
    return stored if stored.artifact.digest == artifact.digest else None


def discard(folder: Path) -> None:
    """Delete a folder, which need not be there; it loses its name first, so that nobody finds half of it.

    Whoever calls this holds the lock of the folder above it.

    Raises:
        StorageError: it cannot be moved, and is as it was; or what was moved cannot be deleted.
    """
    aside = _beside(folder, ".old")
    with storing(folder.parent):
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise StorageError(f"'{aside}' cannot be deleted: {error.strerror}", hint="delete it by hand") from error


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Open a folder beside `folder`, removed at the end if it is still there, as are all that killed processes left beside it.

    Its lock is held, by which processes of other hosts and containers see that it is in use.
    """
    temporary = _beside(folder)
    with ExitStack() as stack:
        with storing(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with folder_lock(folder.parent):  # so that nobody finds it without its lock
                _remove_abandoned(folder.parent)
                temporary.mkdir(parents=True)
                stack.enter_context(folder_lock(temporary))
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        with storing(folder.parent):
            yield temporary


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders that killed processes have left in a folder, which need not be there."""
    if folder.is_dir():
        with storing(folder), folder_lock(folder):
            _remove_abandoned(folder)


def _beside(folder: Path, use: str = "") -> Path:
    """Return a new path beside a folder, in the form of which abandoned ones are removed."""
    return folder.with_name(f".{folder.name}{use}.{secrets.token_hex(8)}")


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary folders whose lock nobody holds. Whoever calls this holds the lock of the folder that they are in."""
    for left in parent.glob(".*"):
        if _TEMPORARY.fullmatch(left.name) and left.is_dir() and not is_locked(left):
            shutil.rmtree(left, ignore_errors=True)


def file_ref(folder: Path, path: Path) -> FileRef:
    return FileRef(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), size_bytes=path.stat().st_size)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, also one to which a link leads; copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
