"""GitHub: a night as it is told -> workflow commands, an annotation for each finding; no text in them is another command."""

from collections.abc import Iterator

from quadbench.artifacts.night import RulingKind
from quadbench.report.night import NightView

_LEVELS = {
    RulingKind.REGRESSION: "error",
    RulingKind.MISSING: "error",
    RulingKind.INCONCLUSIVE: "warning",
    RulingKind.ENVIRONMENT: "warning",
    RulingKind.IMPROVEMENT: "notice",
}
_MOST_OF_A_LEVEL = 10  # GitHub shows no more of a step
# As actions/toolkit writes them; the percent sign comes first, or it would be written twice.
_IN_MESSAGE = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTY = {**_IN_MESSAGE, ":": "%3A", ",": "%2C"}


def annotations(view: NightView) -> str:
    """Return the commands, a line each, that a step of a workflow writes to its output: the worst first, 10 of each level."""
    return "".join(f"{line}\n" for line in _lines(view))


def _lines(view: NightView) -> Iterator[str]:
    levels: list[str] = []
    for finding in view.findings:
        level = _LEVELS[finding.kind]
        levels.append(level)
        if levels.count(level) <= _MOST_OF_A_LEVEL:
            title = f"{finding.kind}: {', '.join(finding.cases)} on {finding.address}"
            owners = f" Owner: {', '.join(finding.owners)}." if finding.owners else ""
            message = f"{finding.sentence}{owners} Next: {finding.next_step}"
            yield f"::{level} title={_written(title, _IN_PROPERTY)}::{_written(message, _IN_MESSAGE)}"


def _written(text: str, codes: dict[str, str]) -> str:
    return "".join(codes.get(character, character) for character in text)
