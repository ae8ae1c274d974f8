"""Manifest: an artifact <-> `manifest.json` in its folder with its own checksum, and the folder complete or absent."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from quadbench.artifacts import SCHEMA_VERSION, Bundle, CompiledBundle, FileRef, Stored
from quadbench.artifacts.kit import Kit
from quadbench.artifacts.parts import file_refs
from quadbench.errors import ArtifactError, shown
from quadbench.results.digests import sha256_of
from quadbench.results.storage import storing
from quadbench.spec import is_file, read_file, read_json

MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"  # as `sha256sum -c` reads it
_NO_BUNDLE = "give the folder of a bundle, as results/bundles/<digest>; a recipe's own is built again when it is run"
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
    raw = read_json(path, fault=ArtifactError, hint=hint)
    if not isinstance(raw, dict) or raw.get("schema_version") != SCHEMA_VERSION:
        version = raw.get("schema_version") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(f"'{path}' has schema_version {version}; expected {SCHEMA_VERSION}", hint=hint)
    try:
        artifact = TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise ArtifactError(f"'{path}' at {'.'.join(map(str, first['loc']))}: {reason}", hint=hint) from error
    for file in file_refs(artifact):
        _check_size(folder, file, hint)
    _check_checksum(folder, hint)
    return Stored(artifact=artifact, folder=folder, is_reused=True)


def _check_checksum(folder: Path, hint: str) -> None:
    """Refuse a manifest that was changed after it was written; one of an older quadbench, which wrote no checksum, is named."""
    path, manifest = folder / CHECKSUM, folder / MANIFEST
    if not path.exists():
        log.warning("'%s' has no checksum beside it, as an older quadbench left it; it is taken as it is", manifest)
        return
    expected, noted = _checksum(manifest), read_file(path, fault=ArtifactError, hint=hint)
    if noted != expected:
        difference = f"found {shown(noted.decode(errors='replace'))}, expected {shown(expected.decode())}"
        raise ArtifactError(f"'{manifest}' or its checksum '{path}' was changed after it was written: {difference}", hint=hint)


def _checksum(manifest: Path) -> bytes:
    return f"{sha256_of(manifest)}  {manifest.name}\n".encode()


def _check_size(folder: Path, file: FileRef, hint: str) -> None:
    path = folder / file.path
    size_bytes = path.stat().st_size if path.is_file() else None
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


def publish(folder: Path, make: Callable[[Path], ArtifactT]) -> Stored[ArtifactT]:
    """Let `make` fill a temporary folder, write its manifest and rename it to `folder`; after any failure nothing is left."""
    with temporary_folder(folder) as temporary:
        artifact = make(temporary)
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps(asdict(artifact), indent=1, default=str, allow_nan=False) + "\n")
        (temporary / CHECKSUM).write_bytes(_checksum(manifest))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    return Stored(artifact=artifact, folder=folder)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Open a folder beside `folder`, removed at the end if it is still there, as are those that killed processes have left."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    _remove_abandoned(folder)
    try:
        with storing(folder.parent):
            temporary.mkdir(parents=True)
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders that killed processes have left."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        owner = left.suffix[1:]
        if owner == str(os.getpid()) or not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)


def file_ref(folder: Path, path: Path) -> FileRef:
    """Return the reference of a file below `folder`."""
    return FileRef(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), size_bytes=path.stat().st_size)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
