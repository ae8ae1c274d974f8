"""A content-addressed store: files under their sha256, and JSON entries that refer to them. All data are verified when read."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import AwareDatetime, ValidationError

from quadbench.artifacts import FileRef
from quadbench.artifacts.safe_text import FileName, Sha256
from quadbench.errors import ArtifactError, NotStoredError
from quadbench.farm.store.keys import CONDEMNED, MARKER, object_key
from quadbench.farm.store.place import Place
from quadbench.results.digests import MAX_BYTES
from quadbench.results.documents import adapter_of
from quadbench.spec import first_problem

SCHEMA_VERSION = 1
MOST_FILES = 10_000  # limit for one artifact or launch
MOST_DOCUMENT_BYTES = 2**24  # limit for manifests and entries, which are read into memory
_AGAIN = "send it again from a host that has it; quadbench store check --remove takes every damaged object out of its way"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The JSON file that marks a folder or bucket as a quadbench store."""

    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class ArtifactEntry:
    """The store's entry of an artifact, a JSON file. It is written when all files of the artifact are stored."""

    schema_version: int = SCHEMA_VERSION
    kind: str
    digest: Sha256
    manifest: FileRef


@dataclass(frozen=True, kw_only=True)
class LaunchEntry:
    """The store's entry of a launch, a JSON file. File paths in it are relative to the launch's folder."""

    schema_version: int = SCHEMA_VERSION
    run_id: FileName
    files: tuple[FileRef, ...]


@dataclass(frozen=True, kw_only=True)
class Condemned:
    """The store's list of files marked for removal, a JSON file. `keys` maps each file's key to the time when it was marked."""

    schema_version: int = SCHEMA_VERSION
    keys: dict[str, AwareDatetime] = field(default_factory=dict)


DocumentT = TypeVar("DocumentT", Marker, ArtifactEntry, LaunchEntry, Condemned)


@dataclass(frozen=True)
class Store:
    """An open folder or bucket with files under their sha256. Uploads skip content already stored; downloads are verified."""

    place: Place

    @property
    def name(self) -> str:
        """Return the store's folder path or URL for messages, without credentials."""
        return self.place.name

    def blocks(self, file: FileRef) -> Iterator[bytes]:
        """Yield a stored file's content in blocks. The sha256 is checked only after the last block; trust nothing earlier.

        Raises:
            NotStoredError: the store does not have it.
            ArtifactError: the object is damaged.
            StorageError: the store cannot be reached, or refuses.
        """
        key = object_key(file.sha256)
        listed = self.place.look(key)
        if listed is None:
            raise NotStoredError(
                f"the store '{self.name}' has no object {file.sha256}, the content of '{file.path}'", hint=_AGAIN
            )
        if listed.size_bytes != file.size_bytes:
            raise self._damaged(file, f"has {listed.size_bytes} bytes, expected {file.size_bytes}")
        digest = hashlib.sha256()
        for block in self.place.read(key, file.size_bytes):
            digest.update(block)
            yield block
        if digest.hexdigest() != file.sha256:
            raise self._damaged(file, f"has the sha256 {digest.hexdigest()}")

    def content(self, file: FileRef) -> bytes:
        """Return a stored file's content as bytes. Raise ArtifactError if it is missing, damaged or larger than 16 MiB."""
        if file.size_bytes > MOST_DOCUMENT_BYTES:
            raise self._damaged(file, f"has {file.size_bytes} bytes, expected at most {MOST_DOCUMENT_BYTES}")
        return b"".join(self.blocks(file))

    def fetch(self, file: FileRef, target: Path) -> None:
        """Copy a stored file to a local path atomically. Raise ArtifactError if reading fails, OSError if writing fails."""
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

        Raises:
            ArtifactError: it is too large, of another version, or invalid.
            StorageError: the store cannot be reached, or refuses.
        """
        listed = self.place.look(key)
        if listed is None:
            return None
        if listed.size_bytes > MOST_DOCUMENT_BYTES:
            fault = f"has {listed.size_bytes} bytes, expected at most {MOST_DOCUMENT_BYTES}"
            raise ArtifactError(f"'{key}' in the store '{self.name}' {fault}", hint="remove it")
        content = b"".join(self.place.read(key, listed.size_bytes))
        hint = f'write {{"schema_version": {SCHEMA_VERSION}}} into it' if key == MARKER else "remove it"
        try:
            document: DocumentT = adapter_of(kind).validate_json(content, strict=True)
        except ValidationError as error:
            raise ArtifactError(f"'{key}' in the store '{self.name}': {first_problem(error)}", hint=hint) from error
        if document.schema_version != SCHEMA_VERSION:
            fault = f"has schema_version {document.schema_version}; expected {SCHEMA_VERSION}"
            raise ArtifactError(f"'{key}' in the store '{self.name}' {fault}", hint="use the quadbench that wrote it")
        return document

    def write(self, key: str, document: Marker | ArtifactEntry | LaunchEntry | Condemned) -> None:
        """Write a JSON entry to a key of the store atomically.

        Raises:
            StorageError: the store cannot be reached, or refuses.
        """
        self.place.put(key, f"{json.dumps(asdict(document), indent=1, default=datetime.isoformat)}\n".encode())

    def condemned(self) -> Condemned:
        """Return a Condemned object. Its dict `keys` maps the key of each file marked for removal to the time of marking."""
        return self.document(CONDEMNED, Condemned) or Condemned()

    def _damaged(self, file: FileRef, fault: str) -> ArtifactError:
        return ArtifactError(
            f"object {file.sha256} of the store '{self.name}', the content of '{file.path}', {fault}; it is not used", hint=_AGAIN
        )


def checked_files(files: Iterable[FileRef], name: str) -> tuple[FileRef, ...]:
    """Check an artifact's or launch's files and return them as a tuple without duplicates. Raise ArtifactError if two files
    differ at the same path, one lies inside another, a size is invalid, or there are too many files.
    """
    by_path: dict[str, FileRef] = {}
    for file in files:
        if by_path.setdefault(file.path, file) != file:
            raise ArtifactError(f"{name} has two contents of '{file.path}'", hint=_AGAIN)
        if not 0 <= file.size_bytes <= MAX_BYTES:
            raise ArtifactError(f"{name}: '{file.path}' has {file.size_bytes} bytes, expected 0 to {MAX_BYTES}", hint=_AGAIN)
    if len(by_path) > MOST_FILES:
        raise ArtifactError(f"{name} has {len(by_path)} files, expected at most {MOST_FILES}", hint=_AGAIN)
    for path in by_path:
        for folder in map(str, PurePosixPath(path).parents):
            if folder in by_path:
                raise ArtifactError(f"{name}: '{path}' lies inside the file '{folder}'", hint=_AGAIN)
    return tuple(by_path.values())


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The totals of an upload: number of files sent, bytes sent, and bytes of the files that the store already had."""

    files: int = 0
    sent_bytes: int = 0
    present_bytes: int = 0


class Sending:
    """The uploader of an artifact's or launch's files. `sent` has the totals so far: files and bytes sent, bytes skipped."""

    def __init__(self, store: Store) -> None:
        self.sent = Sent()
        self._store = store
        if store.document(MARKER, Marker) is None:
            store.write(MARKER, Marker())
        self._condemned = store.condemned().keys

    def file(self, source: Path, file: FileRef) -> None:
        """Upload a local file and count it in `sent`. If the store has the file in the same size and not marked for removal,
        skip the upload and only add its size to the bytes already present.

        Raises:
            StorageError: the store cannot be reached, or refuses.
        """
        key = object_key(file.sha256)
        listed = None if key in self._condemned else self._store.place.look(key)
        if listed and listed.size_bytes == file.size_bytes:
            self.sent = replace(self.sent, present_bytes=self.sent.present_bytes + file.size_bytes)
            return
        self._store.place.put(key, source)
        self.sent = replace(self.sent, files=self.sent.files + 1, sent_bytes=self.sent.sent_bytes + file.size_bytes)
