"""Study line: a sweep or a comparison -> what a list says of it: what was compared on what, and what came of it."""

from dataclasses import dataclass

from quadbench.report.sweep import Sweep
from quadbench.report.sweep_answer import sweep_answer
from quadbench.report.versus import Versus, exact_sentences, sentence


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
