"""Send bundles, compiled bundles and runtime kits to a store, and fetch them into a results folder.

All functions that use a store raise StorageError if it, or the results folder, cannot be used.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from quadbench.artifacts import Bundle, CompiledBundle, FileRef, StoredArtifact, StoredBundle, StoredCompiled
from quadbench.artifacts.kit import Kit
from quadbench.artifacts.run_record import file_refs
from quadbench.artifacts.safe_text import check_sha256
from quadbench.errors import ArtifactError, NotStoredError, UserError, quote
from quadbench.farm.store.objects import ARTIFACTS, ArtifactEntry, Sent, Store, artifact_key, checked_files, is_whole, parsed
from quadbench.host import folder_lock
from quadbench.results.disk import storage_errors
from quadbench.results.layout import Layout
from quadbench.results.manifest import CHECKSUM, MANIFEST, ArtifactT, check_contents, file_ref, link_file, publish, read_manifest
from quadbench.spec import read_json

KINDS: dict[str, Any] = {"bundle": Bundle, "compiled-bundle": CompiledBundle, "kit": Kit}  # by the `kind` in their manifests
_PLACES = {Bundle: Layout.bundle, CompiledBundle: Layout.compiled_bundle, Kit: Layout.kit}
_AGAIN = "send it from a host that has it: quadbench store send BUNDLE_DIR"


def send(stored: StoredBundle | StoredCompiled | StoredArtifact[Kit], store: Store) -> Sent:
    """Send an artifact's files to a store, unless already stored, then write its entry. Return counts of files and bytes sent.
    Raise ArtifactError if a local file does not match its manifest.
    """
    kind, digest = stored.artifact.kind, stored.artifact.digest
    files = checked_files(file_refs(stored.artifact), f"'{stored.folder}'")
    check_contents(stored, files)
    manifest = file_ref(stored.folder, stored.folder / MANIFEST)
    sent = store.send((stored.path(file), file) for file in (*files, manifest))
    store.write(artifact_key(kind, digest), ArtifactEntry(kind=kind, digest=digest, manifest=manifest))
    return sent


def fetch(kind: type[ArtifactT], digest: str, layout: Layout, store: Store) -> StoredArtifact[ArtifactT]:
    """Return an artifact and its folder in the results folder. If it is absent or damaged, fetch it from the store first.

    Processes of one host fetch one at a time, so that each artifact is fetched once. Files of other local artifacts are linked.

    Raises:
        NotStoredError: the store does not have it.
        ArtifactError: the digest is invalid, or the stored artifact is damaged or another one; nothing is left here.
    """
    try:
        folder = _PLACES[kind](layout, check_sha256(digest))
    except ValueError as error:
        raise ArtifactError(f"no artifact has this digest: {error}") from error
    with storage_errors(layout.root):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(layout.root):
            with suppress(ArtifactError):
                stored = read_manifest(folder, kind)
                check_contents(stored, file_refs(stored.artifact))
                if stored.artifact.digest == digest:
                    return stored
            _, artifact = described(kind.kind, digest, store)
            return publish(folder, partial(_fill, artifact, layout, store))


def named(beginning: str, store: Store) -> tuple[str, str]:
    """Return the kind and digest of the only stored artifact whose digest begins with `beginning`. Raise NotStoredError if
    there is none, UserError if there are several.
    """
    every = [(kind, digest) for kind, digest in artifacts(store) if beginning and digest.startswith(beginning)]
    if not every:
        raise NotStoredError(f"the store '{store.name}' has no artifact whose digest begins with {quote(beginning)}", hint=_AGAIN)
    if len(every) > 1:
        names = ", ".join(sorted(f"{kind} {digest}" for kind, digest in every))
        raise UserError(f"several artifacts begin with {quote(beginning)}: {names}", hint="give more of it")
    return every[0]


def artifacts(store: Store) -> Iterator[tuple[str, str]]:
    """Yield kind and digest of each artifact in a store, such as `bundle` and 64 hex digits."""
    for listed in store.place.listed(ARTIFACTS):
        match listed["path"].removesuffix(".json").split("/"):
            case [_, kind, digest] if kind in KINDS and listed["path"] == artifact_key(kind, digest):
                with suppress(ValueError):
                    yield kind, check_sha256(digest)


def is_stored(kind: type[ArtifactT], digest: str, store: Store) -> bool:
    """Return True if the store has this artifact and the artifact is not marked for removal. Raise ArtifactError if its entry is
    damaged.
    """
    key = artifact_key(kind.kind, digest)
    return store.document(key, ArtifactEntry) is not None and key not in store.condemned()


def described(kind: str, digest: str, store: Store) -> tuple[FileRef, Any]:
    """Read an artifact's entry and manifest from the store. Return the manifest's FileRef and the artifact: a Bundle,
    CompiledBundle or Kit. The contents of its files are unchecked.

    Raises:
        NotStoredError: the store does not have the artifact.
        ArtifactError: the entry or the manifest is damaged, or the manifest is missing or describes another artifact.
    """
    entry = store.document(artifact_key(kind, digest), ArtifactEntry)
    if entry is None:
        raise NotStoredError(f"the store '{store.name}' has no {kind} {digest}", hint=_AGAIN)
    name = f"the manifest of {kind} {digest} in the store '{store.name}'"
    artifact = parsed(store.content(entry.manifest), KINDS[kind], name=name, hint=_AGAIN)
    if (artifact.kind, artifact.digest) != (kind, digest):
        raise ArtifactError(f"{name} is that of {quote(artifact.kind)} {quote(artifact.digest)}", hint=_AGAIN)
    for file in checked_files(file_refs(artifact), name):
        if file.path in (MANIFEST, CHECKSUM):
            raise ArtifactError(f"{name} names itself as a file, '{file.path}'", hint=_AGAIN)
    return entry.manifest, artifact


def read_any(folder: Path) -> StoredArtifact[Any]:
    """Read a bundle, compiled bundle or runtime kit from its local folder. Return it with its folder as a StoredArtifact. Raise
    ArtifactError as `read_manifest` does.
    """
    raw = read_json(folder / MANIFEST, fault=ArtifactError, hint="give the folder of a bundle, compiled bundle or kit")
    kind = str(raw.get("kind") if isinstance(raw, dict) else None)
    if kind not in KINDS:
        raise ArtifactError(f"'{folder / MANIFEST}' is of kind {quote(kind)}; expected one of {', '.join(KINDS)}")
    return read_manifest(folder, KINDS[kind])


def _fill(artifact: ArtifactT, layout: Layout, store: Store, folder: Path) -> ArtifactT:
    """Put an artifact's files into a folder: files of other local artifacts as links, all others from the store."""
    here = dict(_files_here(layout))
    for file in dict.fromkeys(file_refs(artifact)):
        target = folder / file.path
        if source := here.get(file.sha256):
            with suppress(OSError):
                link_file(source, target)
        if not is_whole(target, file):
            store.fetch(file, target)
    return artifact


def _files_here(layout: Layout) -> Iterator[tuple[str, Path]]:
    """Yield the sha256 and path of each file of the artifacts in the results folder, as their manifests list them."""
    for folder in (layout.bundles, layout.compiled_bundles, layout.kits):
        for manifest in folder.glob(f"[0-9a-f]*/{MANIFEST}"):
            with suppress(ArtifactError):
                stored = read_any(manifest.parent)
                for file in file_refs(stored.artifact):
                    yield file.sha256, stored.path(file)
