"""Runs: a run's records and what belongs to it beside them, in its folder: run.json, and quality.json where it was scored."""

import json
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from quadbench.artifacts import SCHEMA_VERSION, Bundle, Deployment, ErrorClass, RunRecord, RunResult, Status
from quadbench.artifacts.scores import RunScores
from quadbench.errors import ArtifactError
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.results.records import open_records, values_fault


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """The content of run.json. `bundle` is the name of the bundle's folder below `bundles`."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    bundle: str
    deployments: tuple[Deployment, ...]
    published: str | None = None


def new_id() -> str:
    """Return an id for a run or a sweep that begins now; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"


def save_run(layout: Layout, run: RunFile) -> None:
    """Write the run's file, whole or not at all."""
    _write(layout.run_file(run.run_id), run)


def save_scores(layout: Layout, run_id: str, scores: RunScores) -> None:
    """Write the run's scores, whole or not at all; they replace those of an earlier time."""
    _write(layout.scores(run_id), scores)


def load_run(layout: Layout, run_id: str | None = None) -> RunResult:
    """Read a stored run, whole; None is the latest.

    Raises:
        UnknownNameError: no such run.
        ArtifactError: there is no run at all, or its file or its bundle is missing or damaged.
    """
    with open_records(layout.database) as records:
        run_id = run_id or records.latest_run_id()
        if run_id is None:
            raise ArtifactError(f"'{layout.root}' holds no run yet", hint="quadbench run recipes/quickstart.yaml makes one")
        stored = records.of_run(run_id)
    path = layout.run_file(run_id)
    try:
        run = TypeAdapter(RunFile).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' cannot be read: {error}") from error
    return RunResult(
        run_id=run_id,
        stored=read_manifest(layout.bundles / run.bundle, Bundle),
        records=tuple(map(_judged, stored)),
        deployments=run.deployments,
        published=run.published,
        scores=_load_scores(layout.scores(run_id)),
    )


def _judged(record: RunRecord) -> RunRecord:
    """Return the record; as failed where it is an old one with values that nothing measures, whose figures count nowhere."""
    if record.status is not Status.OK or not (fault := values_fault(record)):
        return record
    reason = f"its figures do not count, as it holds what nothing measures: {fault}"
    return replace(record, status=Status.FAILED, error_class=ErrorClass.HARNESS, reason=reason)


def _load_scores(path: Path) -> RunScores | None:
    try:
        return TypeAdapter(RunScores).validate_json(path.read_bytes()) if path.exists() else None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' cannot be read: {error}", hint="remove it, or run quadbench quality again") from error


def _write(path: Path, value: RunFile | RunScores) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(value), indent=1) + "\n")
    temporary.replace(path)
