"""Admitted: the bundle that the latest admission made, remembered until a later run is stored."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from quadbench.artifacts import SCHEMA_VERSION, Bundle, Stored
from quadbench.artifacts.names import FileName
from quadbench.errors import ArtifactError
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.results.runs import run_ids
from quadbench.results.storage import write_whole
from quadbench.spec import first_problem, read_json

_HINT = "remove it: the next admission then starts from the bundle of the latest run"


@dataclass(frozen=True, kw_only=True)
class _Admitted:
    """The content of admitted.json. `run_id` is the latest run at that time."""

    schema_version: int = SCHEMA_VERSION
    bundle: FileName
    run_id: str | None


def save_admitted(layout: Layout, bundle: Stored[Bundle]) -> None:
    """Remember what an admission made, if it lies in this results folder. The file is written whole or not at all."""
    if bundle.folder.resolve().parent != layout.bundles.resolve():
        return
    content = _Admitted(bundle=bundle.folder.name, run_id=_latest(layout))
    write_whole(layout.admitted, json.dumps(asdict(content), indent=1))


def load_admitted(layout: Layout) -> Stored[Bundle] | None:
    """Return what the latest admission made; None where there was none, or where a run came after it.

    Raises:
        ArtifactError: the file or the bundle is damaged.
    """
    path: Path = layout.admitted
    if not path.exists():
        return None
    try:
        content = TypeAdapter(_Admitted).validate_json(json.dumps(read_json(path, fault=ArtifactError, hint=_HINT)), strict=True)
    except ValidationError as error:
        raise ArtifactError(f"'{path}' at {first_problem(error)}", hint=_HINT) from error
    if content.schema_version != SCHEMA_VERSION:
        reason = f"'{path}' has schema_version {content.schema_version}; expected {SCHEMA_VERSION}"
        raise ArtifactError(reason, hint=_HINT)
    is_latest = content.run_id == _latest(layout) and (layout.bundles / content.bundle).is_dir()
    return read_manifest(layout.bundles / content.bundle, Bundle) if is_latest else None


def _latest(layout: Layout) -> str | None:
    return next(iter(run_ids(layout, 1)), None)
