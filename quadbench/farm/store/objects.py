"""A content-addressed store: files under their sha256, and JSON entries that refer to them. All data are verified when read."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from pydantic import AwareDatetime
from pydantic_core import from_json

from quadbench.artifacts import SCHEMA_VERSION, FileRef
from quadbench.artifacts.safe_text import FileName, Sha256
from quadbench.errors import ArtifactError, NotStoredError
from quadbench.farm.store.place import Place
from quadbench.results.digests import MAX_BYTES, sha256_of
from quadbench.results.documents import DocumentT, document_of, document_text

MARKER = "store.json"  # identifies a folder as a store and holds its version
CONDEMNED = "condemned.json"
OBJECTS, ARTIFACTS, RUNS = "objects", "artifacts", "runs"  # a launch's key is its path in a results folder, and `.json`
STORE_VERSION = 1  # of a store's JSON files; manifests have their own
MOST_FILES = 10_000  # limit for one artifact or launch
MOST_DOCUMENT_BYTES = 2**24  # limit for manifests and entries, which are read into memory
_AGAIN = "send it again from a host that has it; first remove a damaged object from the store's folder `objects`"


def object_key(sha256: str) -> str:
    """Return the key, a relative path, under which a store has the content with this sha256."""
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


def artifact_key(kind: str, digest: str) -> str:
    """Return the key of an artifact's entry in a store."""
    return f"{ARTIFACTS}/{kind}/{digest}.json"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The JSON file that marks a folder or bucket as a quadbench store. The store's other JSON files have its fields too."""

    schema_version: int = STORE_VERSION


@dataclass(frozen=True, kw_only=True)
class ArtifactEntry(Marker):
    """The store's entry of an artifact, a JSON file. It is written when all files of the artifact are stored."""

    kind: str
    digest: Sha256
    manifest: FileRef


@dataclass(frozen=True, kw_only=True)
class LaunchEntry(Marker):
    """The store's entry of a launch, a JSON file. File paths in it are relative to the launch's folder."""

    run_id: FileName
    files: tuple[FileRef, ...]


@dataclass(frozen=True, kw_only=True)
class Condemned(Marker):
    """The store's list of files marked for removal, a JSON file. `keys` maps each file's key to the time when it was marked."""

    keys: dict[str, AwareDatetime] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The totals of an upload: number of files sent, bytes sent, and bytes of the files that the store already had."""

    files: int = 0
    sent_bytes: int = 0
    present_bytes: int = 0


@dataclass(frozen=True)
class Store:
    """An open folder or bucket with files under their sha256. Uploads skip content already stored; downloads are verified.

    Methods raise StorageError if the store cannot be reached or refuses, and ArtifactError if what they read is damaged.
    """

    place: Place

    @property
    def name(self) -> str:
        """Return the store's folder path or URL for messages, without credentials."""
        return self.place.name

    def blocks(self, file: FileRef) -> Iterator[bytes]:
        """Yield a stored file's content in blocks. The sha256 is checked only after the last block; trust nothing earlier.
        Raise NotStoredError if the store does not have it.
        """
        key = object_key(file.sha256)
        listed = self.place.look(key)
        if listed is None:
            raise NotStoredError(f"the store '{self.name}' has no object {file.sha256}, which is '{file.path}'", hint=_AGAIN)
        if listed["size"] != file.size_bytes:
            raise self._damaged(file, f"has {listed['size']} bytes, expected {file.size_bytes}")
        digest = hashlib.sha256()
        for block in self.place.read(key, file.size_bytes):
            digest.update(block)
            yield block
        if digest.hexdigest() != file.sha256:
            raise self._damaged(file, f"has the sha256 {digest.hexdigest()}")

    def content(self, file: FileRef) -> bytes:
        """Return a stored file's content as bytes. Raise ArtifactError also if it is missing or larger than 16 MiB."""
        if file.size_bytes > MOST_DOCUMENT_BYTES:
            raise self._damaged(file, f"has {file.size_bytes} bytes, expected at most {MOST_DOCUMENT_BYTES}")
        return b"".join(self.blocks(file))

    def fetch(self, file: FileRef, target: Path) -> None:
        """Copy a stored file to a local path atomically. Raise OSError if writing fails."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as arriving:
                for block in self.blocks(file):
                    arriving.write(block)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def document(self, key: str, kind: type[DocumentT]) -> DocumentT | None:
        """Read the JSON file at a key and validate it as the class `kind`. Return the object, or None if the key has no file.
        Raise ArtifactError if it is too large, of another version, or invalid.
        """
        listed = self.place.look(key)
        if listed is None:
            return None
        name = f"'{key}' in the store '{self.name}'"
        if listed["size"] > MOST_DOCUMENT_BYTES:
            raise ArtifactError(f"{name} has {listed['size']} bytes, expected at most {MOST_DOCUMENT_BYTES}", hint="remove it")
        cure = f'write {{"schema_version": {STORE_VERSION}}} into it' if key == MARKER else "remove it"
        hint = f"use the quadbench that wrote it; if it is damaged, {cure}"
        return parsed(b"".join(self.place.read(key, listed["size"])), kind, name=name, hint=hint, version=STORE_VERSION)

    def write(self, key: str, document: Marker) -> None:
        """Write a JSON entry to a key of the store atomically."""
        self.place.put(key, f"{document_text(document)}\n".encode())

    def condemned(self) -> dict[str, datetime]:
        """Return a dict from the key of each file marked for removal to the time of marking."""
        return (self.document(CONDEMNED, Condemned) or Condemned()).keys

    def send(self, files: Iterable[tuple[Path, FileRef]]) -> Sent:
        """Upload local files, given as pairs of path and FileRef, and return the totals. A file that the store has in the same
        size and not marked for removal is not sent again. An empty folder or bucket becomes a store.
        """
        if self.document(MARKER, Marker) is None:
            self.write(MARKER, Marker())
        condemned, sent, present_bytes = self.condemned(), list[int](), 0
        for path, file in files:
            key = object_key(file.sha256)
            listed = None if key in condemned else self.place.look(key)
            if listed and listed["size"] == file.size_bytes:
                present_bytes += file.size_bytes
            else:
                self.place.put(key, path)
                sent.append(file.size_bytes)
        return Sent(files=len(sent), sent_bytes=sum(sent), present_bytes=present_bytes)

    def _damaged(self, file: FileRef, fault: str) -> ArtifactError:
        name = f"object {file.sha256} of the store '{self.name}', the content of '{file.path}'"
        return ArtifactError(f"{name}, {fault}; it is not used", hint=_AGAIN)


def parsed(content: bytes, kind: type[DocumentT], *, name: str, hint: str, version: int = SCHEMA_VERSION) -> DocumentT:
    """Parse JSON text and validate it as the class `kind`. Raise ArtifactError, in which `name` stands for the text, if it is
    invalid or has not the schema version `version`.
    """
    try:
        raw = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise ArtifactError(f"{name} is not JSON: {error}", hint=hint) from error
    return document_of(raw, kind, name=name, version=version, hint=hint)


def checked_files(files: Iterable[FileRef], name: str, most_bytes: int = MAX_BYTES) -> tuple[FileRef, ...]:
    """Check an artifact's or launch's files and return them as a tuple without duplicates. Raise ArtifactError if two files
    differ at the same path, one lies inside another, a size is not 0 to `most_bytes`, or there are too many files.
    """
    by_path: dict[str, FileRef] = {}
    for file in files:
        if by_path.setdefault(file.path, file) != file:
            raise ArtifactError(f"{name} has two contents of '{file.path}'", hint=_AGAIN)
        if not 0 <= file.size_bytes <= most_bytes:
            raise ArtifactError(f"{name}: '{file.path}' has {file.size_bytes} bytes, expected 0 to {most_bytes}", hint=_AGAIN)
    if len(by_path) > MOST_FILES:
        raise ArtifactError(f"{name} has {len(by_path)} files, expected at most {MOST_FILES}", hint=_AGAIN)
    folders = {str(folder): path for path in by_path for folder in PurePosixPath(path).parents}
    for folder in folders.keys() & by_path.keys():
        raise ArtifactError(f"{name}: '{folders[folder]}' lies inside the file '{folder}'", hint=_AGAIN)
    return tuple(by_path.values())


def is_whole(path: Path, file: FileRef) -> bool:
    """Return True if a local file is there and has the size and sha256 of `file`."""
    try:
        return path.stat().st_size == file.size_bytes and sha256_of(path) == file.sha256
    except OSError:
        return False
