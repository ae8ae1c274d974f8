"""Manifest: an artifact <-> `manifest.json` in its folder, and the folder complete or absent."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from quadbench.artifacts import SCHEMA_VERSION, Bundle, CompiledBundle, FileRef, Stored
from quadbench.artifacts.parts import file_refs
from quadbench.errors import ArtifactError
from quadbench.results.digests import sha256_of

MANIFEST = "manifest.json"
ArtifactT = TypeVar("ArtifactT", Bundle, CompiledBundle)


def read_manifest(folder: Path, kind: type[ArtifactT]) -> Stored[ArtifactT]:
    """Read an artifact from its folder, and check its schema and that every file is there with its size.

    Contents are checked when they are pushed.

    Raises:
        ArtifactError: names the file that is missing, cut or of another schema.
    """
    path = folder / MANIFEST
    hint = f"remove {folder} and run again: it is built anew"
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' is damaged: {error}", hint=hint) from error
    if not isinstance(raw, dict) or raw.get("schema_version") != SCHEMA_VERSION:
        version = raw.get("schema_version") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(f"'{path}' has schema_version {version}; expected {SCHEMA_VERSION}", hint=hint)
    try:
        artifact = TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(f"'{path}' at {'.'.join(map(str, first['loc']))}: {first['msg']}", hint=hint) from error
    for file in file_refs(artifact):
        _check_size(folder, file, hint)
    return Stored(artifact=artifact, folder=folder, is_reused=True)


def _check_size(folder: Path, file: FileRef, hint: str) -> None:
    path = folder / file.path
    size_bytes = path.stat().st_size if path.is_file() else None
    if size_bytes != file.size_bytes:
        state = "is missing" if size_bytes is None else f"has {size_bytes} bytes"
        raise ArtifactError(f"'{path}' {state}; expected {file.size_bytes} bytes", hint=hint)


def publish(folder: Path, make: Callable[[Path], ArtifactT]) -> Stored[ArtifactT]:
    """Let `make` fill a temporary folder, write its manifest and rename it to `folder`; after any failure nothing is left."""
    with temporary_folder(folder) as temporary:
        artifact = make(temporary)
        (temporary / MANIFEST).write_text(json.dumps(asdict(artifact), indent=1, default=str) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    return Stored(artifact=artifact, folder=folder)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Open a folder beside `folder`, removed at the end if it is still there, as are those that killed processes have left."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    _remove_abandoned(folder)
    temporary.mkdir(parents=True)
    try:
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
