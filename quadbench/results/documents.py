"""Write dataclass instances atomically to JSON files with a schema_version; read such files back with validation."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from quadbench.artifacts import SCHEMA_VERSION
from quadbench.errors import ArtifactError
from quadbench.results.disk import write_atomic
from quadbench.spec import first_problem, read_json

DocumentT = TypeVar("DocumentT")

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def document_from(kind: type[DocumentT], source: object, /, **others: Any) -> DocumentT:
    """Create an instance of dataclass `kind` from keyword arguments. Copy missing fields from attributes of `source` by name."""
    names = [one.name for one in fields(cast(Any, kind)) if one.name not in others]
    return kind(**{name: getattr(source, name) for name in names}, **others)


def adapter_of(kind: type[Any]) -> TypeAdapter[Any]:
    """Return pydantic's TypeAdapter, which validates and serializes a dataclass. Adapters are cached: making one is slow."""
    return _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))


def document_text(value: object) -> str:
    """Return a dataclass instance as JSON text. NaN and infinities raise an error."""
    return json.dumps(adapter_of(type(value)).dump_python(value, mode="json"), indent=1, allow_nan=False)


def write_document(path: Path, value: object, *, makes_folders: bool = True) -> None:
    """Write a dataclass instance to a JSON file, atomically."""
    write_atomic(path, document_text(value), makes_folders=makes_folders)


def read_document(path: Path, kind: type[DocumentT], *, version: int = SCHEMA_VERSION, hint: str | None = None) -> DocumentT:
    """Read a JSON file as an instance of the dataclass `kind`.

    Raises:
        ArtifactError: the file is missing, is not JSON, has another version, or does not fit the dataclass.
    """
    raw = read_json(path, fault=ArtifactError, hint=hint)
    return document_of(raw, kind, name=f"'{path}'", version=version, hint=hint)


def document_of(
    raw: Any, kind: type[DocumentT], *, name: str, version: int = SCHEMA_VERSION, hint: str | None = None
) -> DocumentT:
    """Convert a parsed JSON value to an instance of the dataclass `kind`. Error messages use `name` to describe the value.

    Raises:
        ArtifactError: the value has another version, or does not fit the dataclass.
    """
    stored = raw.get("schema_version") if isinstance(raw, dict) else None
    if stored != version or isinstance(stored, bool):
        raise ArtifactError(f"{name} has schema_version {stored!r:.60}; expected {version}", hint=hint)
    try:
        document: DocumentT = adapter_of(kind).validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise ArtifactError(f"{name} at {first_problem(error)}", hint=hint) from error
    return document
