"""Runs: what belongs to one run beside its records, kept in `runs/<run id>/`: run.json, and quality.json where it was scored."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from quadbench.artifacts import SCHEMA_VERSION, Bundle, Deployment, RunResult
from quadbench.errors import ArtifactError
from quadbench.manifest import read_manifest
from quadbench.records import Records
from quadbench.scores import RunScores


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """`bundle` is the name of its folder below `bundles`."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    bundle: str
    deployments: tuple[Deployment, ...]
    published: str | None = None


def save_run(results: Path, run: RunFile) -> None:
    """Write the run's file, whole or not at all."""
    _write(_path(results, run.run_id), run)


def save_scores(results: Path, run_id: str, scores: RunScores) -> None:
    """Write the run's scores, whole or not at all; those of an earlier time are gone."""
    _write(_scores_path(results, run_id), scores)


def load_run(results: Path, records: Records, run_id: str | None) -> RunResult:
    """A stored run, whole; None is the latest.

    Raises:
        UnknownNameError: no such run.
        ArtifactError: its file or its bundle is missing or damaged.
    """
    run_id = run_id or records.latest_run_id()
    if run_id is None:
        raise ArtifactError(f"'{results}' holds no run yet", hint="quadbench run recipes/quickstart.yaml makes one")
    stored = records.of_run(run_id)
    path = _path(results, run_id)
    try:
        run = TypeAdapter(RunFile).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"'{path}' cannot be read: {error}") from error
    folder = results / "bundles" / run.bundle
    bundle = read_manifest(folder, Bundle)
    return RunResult(
        run_id=run_id,
        bundle=bundle,
        bundle_folder=folder,
        records=stored,
        deployments=run.deployments,
        published=run.published,
        scores=_load_scores(_scores_path(results, run_id)),
    )


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


def _path(results: Path, run_id: str) -> Path:
    return results / "runs" / run_id / "run.json"


def _scores_path(results: Path, run_id: str) -> Path:
    return results / "runs" / run_id / "quality.json"
