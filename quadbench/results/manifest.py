"""Read artifact folders and check them against `manifest.json` and its checksum. Write new folders whole or not at all."""

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

from quadbench.artifacts import Bundle, CompiledBundle, FileRef, StoredArtifact, StoredBundle, StoredCompiled
from quadbench.artifacts.kit import Kit
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import ArtifactError, StorageError, quote
from quadbench.host import folder_lock, is_locked
from quadbench.results.digests import sha256_of
from quadbench.results.disk import storage_errors
from quadbench.results.documents import document_of, document_text
from quadbench.spec import is_file, read_file, read_json

MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"  # as `sha256sum -c` reads it
_NO_BUNDLE = "give a bundle's folder, such as results/bundles/<digest>; to rebuild a recipe's bundle, run the recipe"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
ArtifactT = TypeVar("ArtifactT", Bundle, CompiledBundle, Kit)

log = logging.getLogger(__name__)


def read_manifest(folder: Path, kind: type[ArtifactT]) -> StoredArtifact[ArtifactT]:
    """Read an artifact's manifest and return it as a StoredArtifact. Check schema, checksum, and every file's presence and size.

    File contents are not checked here but by `check_contents`, before files are used or pushed.

    Raises:
        ArtifactError: a file is missing, has another size, was changed, or has another schema or an unsafe path.
    """
    path = folder / MANIFEST
    hint = _rebuild_hint(folder, kind) if kind is Kit or is_file(path) else _NO_BUNDLE
    artifact = document_of(read_json(path, fault=ArtifactError, hint=hint), kind, name=f"'{path}'", hint=hint)
    for file in file_refs(artifact):
        _check_size(folder, file, hint)
    checksum, expected = folder / CHECKSUM, _checksum(path)
    if (noted := read_file(checksum, fault=ArtifactError, hint=hint)) != expected:
        difference = f"found {quote(noted.decode(errors='replace'))}, expected {quote(expected.decode())}"
        raise ArtifactError(f"'{path}' or its checksum '{checksum}' was changed after it was written: {difference}", hint=hint)
    return StoredArtifact(artifact=artifact, folder=folder, is_reused=True)


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


def check_contents(stored: StoredBundle | StoredCompiled | StoredArtifact[Kit], files: Iterable[FileRef]) -> None:
    """Check the SHA-256 of given `files` in a stored bundle, compiled bundle or library kit. Raise ArtifactError if one differs.

    Call this before reading or passing on such files. An unchanged file is hashed only once in a process.

    Raises:
        ArtifactError: a file has another content; the message names the first one.
    """
    hint = _rebuild_hint(stored.folder, type(stored.artifact))
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
    """Return a file's SHA-256 in hex. It is computed again only if `state` (device number, inode, size and times) changes."""
    return sha256_of(path)


def _rebuild_hint(folder: Path, kind: type[Bundle] | type[CompiledBundle] | type[Kit]) -> str:
    """Return a text that tells how to replace a damaged folder: rebuild the bundle, or add the kit of device libraries again."""
    if kind is Kit:
        return f"run quadbench runtime remove {folder.name}, then add or fetch the kit again"
    return f"remove {folder} and run again: it is then rebuilt"


def read_checked(folder: Path, kind: type[ArtifactT]) -> StoredArtifact[ArtifactT]:
    """Read an artifact from its folder and return a StoredArtifact. Check the manifest, and every file's size and SHA-256."""
    stored = read_manifest(folder, kind)
    check_contents(stored, file_refs(stored.artifact))
    return stored


def publish(folder: Path, make: Callable[[Path], ArtifactT]) -> StoredArtifact[ArtifactT]:
    """Call `make(path)` to write an artifact into temporary folder `path`. Add a manifest, and rename the folder to `folder`.

    If `folder` already holds the artifact, undamaged, keep and return it, since others may be reading it. Anything else there is
    replaced. If processes publish the same artifact at once, the first one wins. On failure, the temporary folder is deleted.
    """
    with temporary_folder(folder) as temporary:
        artifact = make(temporary)
        manifest = temporary / MANIFEST
        manifest.write_text(f"{document_text(artifact)}\n")
        (temporary / CHECKSUM).write_bytes(_checksum(manifest))
        with folder_lock(folder.parent):
            if kept := _existing(folder, artifact):
                return kept
            discard(folder)
            temporary.rename(folder)
    return StoredArtifact(artifact=artifact, folder=folder)


def _existing(folder: Path, artifact: ArtifactT) -> StoredArtifact[ArtifactT] | None:
    """Return the artifact stored in `folder` if it is undamaged and has the digest of `artifact`. Otherwise return None."""
    if not os.path.lexists(folder):
        return None
    try:
        stored = read_checked(folder, type(artifact))
    except ArtifactError as error:
        log.warning("%s; it is replaced", error.message)
        return None
    return stored if stored.artifact.digest == artifact.digest else None


def discard(folder: Path) -> None:
    """Delete a folder if it exists. The folder is renamed first, so that no other process sees it half deleted.

    The caller must hold the lock of the parent folder.

    Raises:
        StorageError: the folder cannot be moved and is unchanged, or the moved one cannot be deleted.
    """
    aside = _beside(folder, ".old")
    with storage_errors(folder.parent):
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
    """Create, lock and yield a temporary folder beside `folder`. Delete it when the `with` block ends, unless it was moved.

    Temporary folders of killed processes beside it are removed too. The lock shows processes of other hosts and containers that
    the folder is in use.
    """
    temporary = _beside(folder)
    with ExitStack() as stack:
        with storage_errors(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with folder_lock(folder.parent):  # so that no process sees the folder before it is locked
                _remove_abandoned(folder.parent)
                temporary.mkdir(parents=True)
                stack.enter_context(folder_lock(temporary))
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        with storage_errors(folder.parent):
            yield temporary


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders of killed processes from a folder, if that folder exists."""
    if folder.is_dir():
        with storage_errors(folder), folder_lock(folder):
            _remove_abandoned(folder)


def _beside(folder: Path, use: str = "") -> Path:
    """Return a hidden path beside `folder`: a dot, the folder's name, the suffix `use`, a dot, and 16 random hex digits."""
    return folder.with_name(f".{folder.name}{use}.{secrets.token_hex(8)}")


def _remove_abandoned(parent: Path) -> None:
    """Remove unlocked temporary folders. The caller must hold the lock of their parent folder."""
    for left in parent.glob(".*"):
        if _TEMPORARY.fullmatch(left.name) and left.is_dir() and not is_locked(left):
            shutil.rmtree(left, ignore_errors=True)


def file_ref(folder: Path, path: Path) -> FileRef:
    return FileRef(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), size_bytes=path.stat().st_size)


def link_file(source: Path, target: Path) -> None:
    """Create a hard link to a file (resolving symbolic links), or a copy if the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
