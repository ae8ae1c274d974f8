"""Frozen: a name and a bundle -> the bundle under that name for good, in a small file of the results folder."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from quadbench.artifacts import SCHEMA_VERSION, Bundle, Stored
from quadbench.artifacts.names import Sha256
from quadbench.errors import ArtifactError, UnknownNameError, UserError, shown
from quadbench.results.bundles import kept
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.results.storage import write_whole
from quadbench.spec import NAME_EXPECTED, first_problem, is_name, read_json

_HINT = "remove it, and freeze the bundle again"


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The content of a frozen bundle's file."""

    schema_version: int = SCHEMA_VERSION
    name: str
    bundle: Sha256
    frozen_at: AwareDatetime


def frozen_name(name: str) -> str:
    """Return a name under which a bundle can be frozen.

    Raises:
        UserError: it is none.
    """
    if not is_name(name):
        raise UserError(f"no bundle can be frozen under the name {shown(name)}", hint=f"expected {NAME_EXPECTED}")
    return name


def freeze(name: str, bundle: Stored[Bundle], layout: Layout) -> Frozen:
    """Give a bundle a name for good. It is copied into the results folder if it lies elsewhere.

    Raises:
        UserError: the name is none, or another bundle has it.
        ArtifactError: the bundle is damaged.
        StorageError: the results folder is full or cannot be written.
    """
    path = layout.frozen(frozen_name(name))
    if path.exists() and (there := read_frozen(name, layout)):
        if there.bundle != bundle.artifact.digest:
            raise UserError(
                f"'{name}' is bundle {there.bundle[:12]} for good, and cannot become {bundle.artifact.digest[:12]}",
                hint="give the other bundle a name of its own: series beside it begin anew",
            )
        kept(bundle, layout)
        return there
    kept(bundle, layout)
    frozen = Frozen(name=name, bundle=bundle.artifact.digest, frozen_at=datetime.now(UTC))
    write_whole(path, json.dumps(asdict(frozen), indent=1, default=datetime.isoformat))
    return frozen


def read_frozen(name: str, layout: Layout) -> Frozen:
    """Return what a frozen bundle's file says.

    Raises:
        UserError: the name is none.
        UnknownNameError: nothing is frozen under this name; the message lists what is.
        ArtifactError: the file is damaged.
    """
    path = layout.frozen(frozen_name(name))
    if not path.exists():
        hint = f"freeze one: {layout.command('nightly', 'freeze', name, 'RECIPE')}"
        raise UnknownNameError("frozen bundle", name, frozen_names(layout), hint=hint)
    try:
        frozen = TypeAdapter(Frozen).validate_json(json.dumps(read_json(path, fault=ArtifactError, hint=_HINT)), strict=True)
    except ValidationError as error:
        raise ArtifactError(f"'{path}' at {first_problem(error)}", hint=_HINT) from error
    if (frozen.schema_version, frozen.name) != (SCHEMA_VERSION, name):
        raise ArtifactError(
            f"'{path}' is of '{frozen.name}', schema_version {frozen.schema_version}; expected '{name}', {SCHEMA_VERSION}",
            hint=_HINT,
        )
    return frozen


def frozen_bundle(name: str, layout: Layout) -> Stored[Bundle]:
    """Return the bundle that is frozen under a name.

    Raises:
        UserError, UnknownNameError: as `read_frozen`.
        ArtifactError: its file or the bundle is damaged, or the bundle is gone.
    """
    try:
        return read_manifest(layout.bundle(read_frozen(name, layout).bundle), Bundle)
    except ArtifactError as error:
        hint = f"bring it back: quadbench nightly freeze {name} FOLDER, or the recipe of which it was built"
        raise ArtifactError(f"frozen bundle '{name}': {error.message}", hint=hint) from error


def frozen_names(layout: Layout) -> list[str]:
    """Return the names of all frozen bundles."""
    return sorted(path.stem for path in layout.frozen_bundles.glob("*.json"))


def frozen_digests(layout: Layout) -> set[str]:
    """Return the digests of all frozen bundles.

    Raises:
        ArtifactError: a file of one is damaged.
    """
    return {read_frozen(name, layout).bundle for name in frozen_names(layout)}
