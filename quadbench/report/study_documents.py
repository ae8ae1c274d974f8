"""A sweep or a comparison as JSON, and as one line of a list."""

from dataclasses import dataclass, fields
from pathlib import Path

from quadbench.report.sweep import Sweep
from quadbench.report.sweep_answer import sweep_answer
from quadbench.report.versus import Versus, answer, exact_sentences, sentence
from quadbench.results.documents import document_text, write_document
from quadbench.results.layout import Layout


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """A line of the list. `sentences` say what came of it; `reason` what is wrong with one that cannot be read."""

    study_id: str
    kind: str  # sweep or comparison
    what: str | None = None
    devices: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    reason: str | None = None


def study_line(study: Sweep | Versus) -> StudyLine:
    """Return the line of a study that could be read."""
    if isinstance(study, Sweep):
        return StudyLine(
            study_id=study.sweep_id,
            kind="sweep",
            what=f"{study.recipe_name} over {', '.join(study.keys)}",
            devices=tuple(dict.fromkeys(point.device for point in study.points)),
            sentences=sweep_answer(study),
        )
    return StudyLine(
        study_id=study.comparison_id,
        kind="comparison",
        what=study.title,
        devices=tuple(device.device.address for device in study.devices),
        sentences=(*map(sentence, study.devices), *exact_sentences(study)),
    )


def damaged_study(study_id: str, kind: str, reason: str) -> StudyLine:
    """Return the line of a study that cannot be read."""
    return StudyLine(study_id=study_id, kind=kind, reason=reason)


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
    return document_text(study_document(study, folder))


def write_comparison(versus: Versus, layout: Layout) -> None:
    """Write comparison.json into the comparison's folder, whole or not at all.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    write_document(layout.comparison(versus.comparison_id) / "comparison.json", study_document(versus))
