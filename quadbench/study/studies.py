"""Studies: a results folder -> its stored sweeps and comparisons, each whole or as a line of a list."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quadbench.errors import ArtifactError, UnknownNameError, shown
from quadbench.recipe.published import published_table
from quadbench.report.study_documents import StudyLine, damaged_study, study_line
from quadbench.report.sweep import SCHEMA_VERSION as SWEEP_VERSION
from quadbench.report.sweep import Sweep
from quadbench.report.versus import SCHEMA_VERSION as COMPARISON_VERSION
from quadbench.report.versus import Versus
from quadbench.results.layout import Layout
from quadbench.spec import first_problem, read_json

Study = Sweep | Versus
_MOST = 1e17  # of any number: three years in nanoseconds; up to it no chart overflows
_KINDS: dict[str, tuple[type[Study], int]] = {
    "sweep.json": (Sweep, SWEEP_VERSION),
    "comparison.json": (Versus, COMPARISON_VERSION),
}


def find_study(layout: Layout, study_id: str) -> Path | None:
    """Return the file of the sweep or the comparison of this id; None where there is none."""
    return next((path for path in layout.studies() if path.parent.name == study_id), None)


def read_study(path: Path) -> Study:
    """Read the file of a sweep or a comparison.

    Raises:
        ArtifactError: it is damaged, of another version, or does not lie where its id says.
    """
    kind, version = _KINDS[path.name]
    hint = f"remove '{path.parent}', and sweep or compare again; the runs are whole"
    raw = read_json(path, fault=ArtifactError, hint=hint)
    told = raw.get("schema_version") if isinstance(raw, dict) else None
    if told != version or isinstance(told, bool):
        raise ArtifactError(f"'{path}' has schema_version {shown(str(told))}; expected {version}", hint=hint)
    if any(not -_MOST <= number <= _MOST for number in _numbers(raw)):
        raise ArtifactError(f"'{path}' has a number beyond {_MOST:g}", hint=hint)
    try:
        study: Study = TypeAdapter(kind).validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise ArtifactError(f"'{path}' at {first_problem(error)}", hint=hint) from error
    if fault := _fault(study, path.parent.name):
        raise ArtifactError(f"'{path}' {fault}", hint=hint)
    return study


def study_lines(layout: Layout, limit: int) -> list[StudyLine]:
    """Return the latest sweeps and comparisons, latest first, damaged ones with what is wrong."""
    latest = sorted(layout.studies(), key=lambda path: path.parent.name, reverse=True)[:limit]
    return [_line(path) for path in latest]


def _line(path: Path) -> StudyLine:
    try:
        return study_line(read_study(path))
    except ArtifactError as error:
        return damaged_study(path.parent.name, path.stem, error.message)


def _fault(study: Study, folder: str) -> str | None:
    """Say what is wrong with the values of a study; None where nothing is."""
    study_id = study.sweep_id if isinstance(study, Sweep) else study.comparison_id
    if study_id != folder:
        return f"is of '{study_id}'; expected '{folder}'"
    if isinstance(study, Versus):
        told = [row.comparison for device in study.devices for row in device.rows if row.comparison]
        ends = [end for one in told for end in (one.ratio, one.low, one.high) if end is not None]
        return "has a ratio that is not above 0" if any(end <= 0 for end in ends) else None
    if not study.points:
        return "has no points"
    if any(set(point.setting) != set(study.keys) for point in study.points):
        return f"has a point of other keys than {', '.join(study.keys)}"
    try:
        _ = study.published and published_table(study.published)
    except UnknownNameError as error:
        return f"names an {error.message}"
    return None


def _numbers(value: Any) -> Iterator[float]:
    """Yield every number in a JSON value, however deep."""
    match value:
        case bool() | str() | None:
            return
        case int() | float():
            yield value
        case dict() | list():
            for part in value.values() if isinstance(value, dict) else value:
                yield from _numbers(part)
