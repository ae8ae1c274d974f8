"""Send bundles, compiled bundles and runtime kits to a store, and fetch them into a results folder."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from quadbench.artifacts import Bundle, CompiledBundle, FileRef, StoredArtifact, StoredBundle, StoredCompiled
from quadbench.artifacts.kit import Kit
from quadbench.artifacts.run_record import file_refs
from quadbench.artifacts.safe_text import check_sha256
from quadbench.errors import ArtifactError, NotStoredError, UserError, quote
from quadbench.farm.store.keys import ARTIFACTS, artifact_key
from quadbench.farm.store.objects import ArtifactEntry, Sending, Sent, Store, checked_files
from quadbench.host import folder_lock
from quadbench.results.digests import sha256_of
from quadbench.results.disk import storage_errors
from quadbench.results.documents import document_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import (
    CHECKSUM,
    MANIFEST,
    ArtifactT,
    check_contents,
    file_ref,
    link_file,
    publish,
    read_checked,
    read_manifest,
)
from quadbench.spec import read_json

KINDS: dict[str, Any] = {"bundle": Bundle, "compiled-bundle": CompiledBundle, "kit": Kit}  # by the `kind` in their manifests
_PLACES = {Bundle: Layout.bundle, CompiledBundle: Layout.compiled_bundle, Kit: Layout.kit}
_AGAIN = "send it from a host that has it: quadbench store send BUNDLE_DIR"


@dataclass(frozen=True, kw_only=True)
class ArtifactName:
    """The kind and digest of an artifact in a store."""

    kind: str
    digest: str


def send(stored: StoredBundle | StoredCompiled | StoredArtifact[Kit], store: Store) -> Sent:
    """Send an artifact's files to a store, unless already stored, then write its entry. Return counts of files and bytes sent.

    Raises:
        ArtifactError: a local file does not match its manifest, or the artifact has no valid digest.
        StorageError: the store cannot be reached, is full, or refuses.
    """
    artifact = stored.artifact
    try:
        check_sha256(artifact.digest)
    except ValueError as error:
        raise ArtifactError(f"'{stored.folder}' cannot be sent: {error}") from error
    files = checked_files(file_refs(artifact), f"'{stored.folder}'")
    check_contents(stored, files)
    manifest = file_ref(stored.folder, stored.folder / MANIFEST)
    sending = Sending(store)
    for file in (*files, manifest):
        sending.file(stored.path(file), file)
    store.write(
        artifact_key(artifact.kind, artifact.digest), ArtifactEntry(kind=artifact.kind, digest=artifact.digest, manifest=manifest)
    )
    return sending.sent


def fetch(kind: type[ArtifactT], digest: str, layout: Layout, store: Store) -> StoredArtifact[ArtifactT]:
    """Return an artifact and its folder in the results folder. If it is absent or damaged, fetch it from the store first.

    Processes of one host fetch one at a time, so that each artifact is fetched once. Files of other local artifacts are linked.

    Raises:
        NotStoredError: the store does not have it.
        ArtifactError: the digest is invalid, or the stored artifact is damaged or another one; nothing is left here.
        StorageError: the store, or the results folder, cannot be used.
    """
    try:
        folder = _PLACES[kind](layout, check_sha256(digest))
    except ValueError as error:
        raise ArtifactError(f"no artifact has this digest: {error}") from error
    with storage_errors(layout.root):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(layout.root):
            if stored := _whole(folder, kind, digest):
                return stored
            artifact = described(entry_of(_word(kind), digest, store), store)
            return publish(folder, partial(_fill, artifact, layout, store))


def named(beginning: str, store: Store) -> ArtifactName:
    """Return the kind and digest of the only stored artifact whose digest begins with `beginning`. Raise NotStoredError if
    there is none, UserError if there are several.
    """
    every = [one for one in artifacts(store) if beginning and one.digest.startswith(beginning)]
    if not every:
        raise NotStoredError(f"the store '{store.name}' has no artifact whose digest begins with {quote(beginning)}", hint=_AGAIN)
    if len(every) > 1:
        names = ", ".join(sorted(f"{one.kind} {one.digest}" for one in every))
        raise UserError(f"several artifacts begin with {quote(beginning)}: {names}", hint="give more of it")
    return every[0]


def artifacts(store: Store) -> Iterator[ArtifactName]:
    """Yield kind and digest of each artifact in a store; raise StorageError if the store cannot be reached or refuses."""
    for listed in store.place.listed(ARTIFACTS):
        _, _, name = listed.key.partition("/")
        kind, _, file = name.partition("/")
        digest = file.removesuffix(".json")
        if kind in KINDS and listed.key == artifact_key(kind, digest):
            with suppress(ValueError):
                yield ArtifactName(kind=kind, digest=check_sha256(digest))


def entry_of(kind: str, digest: str, store: Store) -> ArtifactEntry:
    """Read an artifact's entry from the store. The entry is a JSON file that refers to the artifact's manifest.

    Raises:
        NotStoredError: there is none.
        ArtifactError: the entry is damaged, or belongs to another artifact.
    """
    key = artifact_key(kind, digest)
    entry = store.document(key, ArtifactEntry)
    if entry is None:
        raise NotStoredError(f"the store '{store.name}' has no {kind} {digest}", hint=_AGAIN)
    if (entry.kind, entry.digest) != (kind, digest):
        raise ArtifactError(f"'{key}' in the store '{store.name}' is that of {quote(entry.kind)} {entry.digest}", hint=_AGAIN)
    return entry


def is_stored(kind: type[ArtifactT], digest: str, store: Store) -> bool:
    """Return True if the store has this artifact and the artifact is not marked for removal.

    Raises:
        ArtifactError: its entry is damaged.
        StorageError: the store cannot be reached, or refuses.
    """
    try:
        entry_of(_word(kind), digest, store)
    except NotStoredError:
        return False
    return artifact_key(_word(kind), digest) not in store.condemned().keys


def described(entry: ArtifactEntry, store: Store) -> Any:
    """Read the manifest that a store entry refers to. Return a Bundle, CompiledBundle or Kit. Its files' contents are unchecked.

    Raises:
        ArtifactError: the manifest is missing, damaged, or describes another artifact.
    """
    name = f"the manifest of {entry.kind} {entry.digest} in the store '{store.name}'"
    try:
        raw = from_json(store.content(entry.manifest), allow_inf_nan=False)
    except ValueError as error:
        raise ArtifactError(f"{name} is not JSON: {error}", hint=_AGAIN) from error
    artifact = document_of(raw, KINDS[entry.kind], name=name, hint=_AGAIN)
    if (artifact.kind, artifact.digest) != (entry.kind, entry.digest):
        raise ArtifactError(f"{name} is that of {quote(artifact.kind)} {quote(artifact.digest)}", hint=_AGAIN)
    for file in checked_files(file_refs(artifact), name):
        if file.path in (MANIFEST, CHECKSUM):
            raise ArtifactError(f"{name} names itself as a file, '{file.path}'", hint=_AGAIN)
    return artifact


def read_any(folder: Path) -> StoredArtifact[Any]:
    """Read a bundle, compiled bundle or runtime kit from its local folder. Return it with its folder as a StoredArtifact.

    Raises:
        ArtifactError: as `read_manifest`.
    """
    raw = read_json(folder / MANIFEST, fault=ArtifactError, hint="give the folder of a bundle, compiled bundle or kit")
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in KINDS:
        raise ArtifactError(f"'{folder / MANIFEST}' is of kind {quote(str(kind))}; expected one of {', '.join(KINDS)}")
    return read_manifest(folder, KINDS[kind])


def _word(kind: type[ArtifactT]) -> str:
    return next(word for word, known in KINDS.items() if known is kind)


def _whole(folder: Path, kind: type[ArtifactT], digest: str) -> StoredArtifact[ArtifactT] | None:
    """Return the artifact in a local folder. If it is absent, damaged or its digest is not `digest`, return None."""
    if not folder.exists():
        return None
    with suppress(ArtifactError):
        stored = read_checked(folder, kind)
        return stored if stored.artifact.digest == digest else None
    return None


def _fill(artifact: ArtifactT, layout: Layout, store: Store, folder: Path) -> ArtifactT:
    here = dict(_files_here(layout))
    for file in dict.fromkeys(file_refs(artifact)):
        target = folder / file.path
        if not _linked(here.get(file.sha256), file, target):
            store.fetch(file, target)
    return artifact


def _linked(source: Path | None, file: FileRef, target: Path) -> bool:
    """Hard-link a local file to the target path. If the file is missing or its content wrong, leave no link and return False."""
    if source is None:
        return False
    with suppress(OSError):
        link_file(source, target)
        if sha256_of(target) == file.sha256:
            return True
    target.unlink(missing_ok=True)
    return False


def _files_here(layout: Layout) -> Iterator[tuple[str, Path]]:
    """Yield the sha256 and path of each file of the artifacts in the results folder, as their manifests list them."""
    folders = {"bundle": layout.bundles, "compiled-bundle": layout.compiled_bundles, "kit": layout.kits}
    for word, folder in folders.items():
        for manifest in folder.glob(f"[0-9a-f]*/{MANIFEST}"):
            with suppress(ArtifactError):
                stored = read_manifest(manifest.parent, KINDS[word])
                for file in file_refs(stored.artifact):
                    yield file.sha256, stored.path(file)
