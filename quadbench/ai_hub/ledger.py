"""Ledger: the digest of a model's or job's sources <-> its id at the service, as a JSON file."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from quadbench.artifacts import SCHEMA_VERSION
from quadbench.artifacts.names import one_line
from quadbench.errors import ArtifactError
from quadbench.results.disk import write_whole
from quadbench.spec import first_problem, read_json

Kind = Literal["models", "jobs"]
_SERVICES = TypeAdapter(dict[str, dict[Kind, dict[str, str]]])  # id by digest, for each service


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The entries of one service (`url`) in a file that processes may share. Losing it costs uploads and compilations."""

    path: Path
    url: str

    def find(self, kind: Kind, digest: str) -> str | None:
        """Return the id under which the service knows a model or job; None where it was not noted."""
        identifier: str | None = self._entries(self._read(), kind).get(digest)
        return identifier

    def keep(self, kind: Kind, digest: str, identifier: str) -> None:
        """Note an id; it is on disk when this returns."""
        with self._changing() as content:
            self._entries(content, kind)[digest] = identifier

    def forget(self, kind: Kind, digest: str) -> None:
        """Drop an id that is no longer wanted, so that the same is asked for anew."""
        with self._changing() as content:
            self._entries(content, kind).pop(digest, None)

    def _entries(self, content: dict[str, Any], kind: Kind) -> dict[str, str]:
        entries: dict[str, str] = content["services"].setdefault(self.url, {}).setdefault(kind, {})
        return entries

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"schema_version": SCHEMA_VERSION, "services": {}}
        try:
            content = read_json(self.path, fault=ArtifactError)
        except ArtifactError as error:
            raise self._damaged(error.message) from error
        if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
            raise self._damaged(f"expected schema_version {SCHEMA_VERSION}")
        try:
            _SERVICES.validate_python(content.get("services"))
        except ValidationError as error:
            raise self._damaged(f"services: {one_line(first_problem(error))}") from error
        return content

    def _damaged(self, why: str) -> ArtifactError:
        return ArtifactError(
            f"'{self.path}' is damaged: {why}", hint="remove it; models are then uploaded and compiled at AI Hub again"
        )

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = self._read()
            yield content
            write_whole(self.path, json.dumps(content, indent=1, sort_keys=True))
