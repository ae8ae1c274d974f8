"""Store bundles by digest in a results folder, name bundles permanently, and record the last bundle to gain an adapter."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime

from quadbench.artifacts import SCHEMA_VERSION, Bundle, StoredBundle
from quadbench.artifacts.run_record import file_refs
from quadbench.artifacts.safe_text import FileName, Sha256
from quadbench.errors import ArtifactError, UnknownNameError, UserError, quote
from quadbench.results.documents import read_document, write_document
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, link_file, publish, read_manifest
from quadbench.results.stored_runs import run_ids
from quadbench.spec import NAME_EXPECTED, is_name

_FROZEN_HINT = "remove the file, and freeze the bundle again"
_ADMITTED_HINT = "remove the file; the next admission then starts from the bundle of the latest run"


def ensure_local(bundle: StoredBundle, layout: Layout) -> StoredBundle:
    """Return the bundle in the results folder. A bundle outside the folder is first stored there, as hard links or copies.

    Raises:
        ArtifactError: a bundle from elsewhere is damaged.
        StorageError: the results folder is full or cannot be written.
    """
    return bundle if bundle.folder.resolve().parent == layout.bundles.resolve() else store_bundle(bundle, layout)


def store_bundle(bundle: StoredBundle, layout: Layout) -> StoredBundle:
    """Hard-link or copy a bundle's files to a results folder's subfolder named by digest. Return the copy as a StoredBundle."""
    own, files = layout.bundle(bundle.artifact.digest), tuple(dict.fromkeys(file_refs(bundle.artifact)))

    def fill(folder: Path) -> Bundle:
        try:
            for file in files:
                link_file(bundle.path(file), folder / file.path)
            check_contents(replace(bundle, folder=folder), files)  # checks the copies, as the original may have changed meanwhile
        except (ArtifactError, OSError):
            check_contents(bundle, files)  # names the damaged file of the original
            raise
        return bundle.artifact

    if bundle.folder.resolve() != own.resolve():
        return publish(own, fill)
    check_contents(bundle, files)
    return bundle


@dataclass(frozen=True, kw_only=True)
class FrozenBundle:
    """The JSON file that gives a bundle a permanent name (freezes it): the name, and the digest of the bundle."""

    schema_version: int = SCHEMA_VERSION
    name: str
    bundle: Sha256
    frozen_at: AwareDatetime


def frozen_name(name: str) -> str:
    """Return the name if it is valid for a frozen bundle; raise UserError otherwise."""
    if not is_name(name):
        raise UserError(f"{quote(name)} is not a valid name for a frozen bundle", hint=f"use {NAME_EXPECTED}")
    return name


def freeze(name: str, bundle: StoredBundle, layout: Layout) -> FrozenBundle:
    """Give a bundle a permanent name and return the FrozenBundle on disk. Store the bundle in the results folder if absent.

    Raises:
        UserError: the name is invalid, or another bundle has it.
        ArtifactError: the bundle is damaged.
        StorageError: the results folder is full or cannot be written.
    """
    path = layout.frozen(frozen_name(name))
    if path.exists() and (there := read_frozen(name, layout)):
        if there.bundle != bundle.artifact.digest:
            raise UserError(
                f"'{name}' is permanently bundle {there.bundle[:12]}, and cannot become {bundle.artifact.digest[:12]}",
                hint="freeze the other bundle under a new name; series measured against it start anew",
            )
        store_bundle(bundle, layout)
        return there
    store_bundle(bundle, layout)
    frozen = FrozenBundle(name=name, bundle=bundle.artifact.digest, frozen_at=datetime.now(UTC))
    write_document(path, frozen)
    return frozen


def read_frozen(name: str, layout: Layout) -> FrozenBundle:
    path = layout.frozen(frozen_name(name))
    if not path.exists():
        hint = f"freeze one: {layout.command('nightly', 'freeze', name, 'RECIPE')}"
        raise UnknownNameError("frozen bundle", name, frozen_names(layout), hint=hint)
    return read_document(path, FrozenBundle, hint=_FROZEN_HINT)


def frozen_bundle(name: str, layout: Layout) -> StoredBundle:
    """Return the bundle with a permanent name. Raise UnknownNameError for an unknown name, ArtifactError for damaged files."""
    try:
        return read_manifest(layout.bundle(read_frozen(name, layout).bundle), Bundle)
    except ArtifactError as error:
        hint = f"restore it: quadbench nightly freeze {name} SOURCE, with its folder or its recipe as SOURCE"
        raise ArtifactError(f"frozen bundle '{name}': {error.message}", hint=hint) from error


def frozen_names(layout: Layout) -> list[str]:
    return sorted(path.stem for path in layout.frozen_bundles.glob("*.json"))


def frozen_digests(layout: Layout) -> set[str]:
    """Return the SHA-256 digests of all bundles with a permanent name. Raise ArtifactError if a name's JSON file is damaged."""
    return {read_frozen(name, layout).bundle for name in frozen_names(layout)}


@dataclass(frozen=True, kw_only=True)
class _AdmittedBundle:
    """The content of admitted.json. `bundle` is the folder name of the bundle to which an adapter was last added. `run_id` is the
    id of the run that was the latest at that time, None if no run existed. The file is ignored if the latest run changed.
    """

    schema_version: int = SCHEMA_VERSION
    bundle: FileName
    run_id: str | None


def save_admitted(layout: Layout, bundle: StoredBundle) -> None:
    """Write a bundle's folder name and the id of the latest run to admitted.json. Skip a bundle outside the results folder."""
    if bundle.folder.resolve().parent != layout.bundles.resolve():
        return
    write_document(layout.admitted, _AdmittedBundle(bundle=bundle.folder.name, run_id=_latest(layout)))


def load_admitted(layout: Layout) -> StoredBundle | None:
    """Return the bundle to which an adapter was last added, as named in admitted.json. Return None if the file or bundle is
    missing, or if the file's run is no longer the latest. Raise ArtifactError if the file or bundle is damaged.
    """
    if not layout.admitted.exists():
        return None
    content = read_document(layout.admitted, _AdmittedBundle, hint=_ADMITTED_HINT)
    is_latest = content.run_id == _latest(layout) and (layout.bundles / content.bundle).is_dir()
    return read_manifest(layout.bundles / content.bundle, Bundle) if is_latest else None


def _latest(layout: Layout) -> str | None:
    return next(iter(run_ids(layout, 1)), None)
