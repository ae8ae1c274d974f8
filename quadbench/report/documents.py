"""Documents: a sweep or a comparison -> its JSON as it is stored and printed."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import TypeAdapter

from quadbench.report.sweep import Sweep
from quadbench.report.sweep_answer import sweep_answer
from quadbench.report.versus import Versus, answer
from quadbench.results.layout import Layout
from quadbench.results.storage import write_whole


@dataclass(frozen=True, kw_only=True)
class SweepDocument(Sweep):
    """A sweep with its result in words and, where it is printed, the folder that holds its tables, pictures and report."""

    sentences: tuple[str, ...]
    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonDocument(Versus):
    """A comparison with its result in sentences and, where it is printed, the folder that holds its report."""

    sentences: tuple[str, ...]
    folder: str | None = None


def study_document(study: Sweep | Versus, folder: Path | None = None) -> SweepDocument | ComparisonDocument:
    """Return what is stored of a study; with its folder, what is printed of it."""
    values = {field.name: getattr(study, field.name) for field in fields(study)}
    where = None if folder is None else str(folder)
    if isinstance(study, Sweep):
        return SweepDocument(**values, sentences=sweep_answer(study), folder=where)
    return ComparisonDocument(**values, sentences=answer(study), folder=where)


def study_json(study: Sweep | Versus, folder: Path | None = None) -> str:
    """Return the document of a study as text."""
    document = study_document(study, folder)
    return json.dumps(TypeAdapter(type(document)).dump_python(document, mode="json"), indent=1, allow_nan=False)


def write_comparison(versus: Versus, layout: Layout) -> None:
    """Write comparison.json into the comparison's folder, whole or not at all.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    write_whole(layout.comparison(versus.comparison_id) / "comparison.json", study_json(versus))
