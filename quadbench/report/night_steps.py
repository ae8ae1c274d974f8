"""Night steps: a ruling that is not clean, and what was measured -> the command that comes next, and what it is for; pure."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from quadbench.artifacts import Caveat
from quadbench.artifacts.night import Measurement, Ruling, RulingKind
from quadbench.report.night_words import words

_COOLING = "Let the device cool; then"


@dataclass(frozen=True, kw_only=True)
class NightStep:
    """A command as a shell takes it, and what it is for, without a stop at the end."""

    purpose: str
    command: str


def next_step(ruling: Ruling, tonight: Measurement | None, last_good: Measurement | None, where: Sequence[str]) -> NightStep:
    """Return what helps most; `where` are the words of a command that name its place.

    `last_good` is the last night in which the device ran what the ruling names so; a measurement is None where there is none.
    """
    doctor, history = ("doctor", "--device", ruling.address), ("history", ruling.case, "--devices", ruling.address)
    is_hot = tonight is not None and Caveat.THROTTLED in tonight.caveats
    match ruling.kind:
        case RulingKind.MISSING:
            return _step("See what the device lacks, so that the next night measures it", doctor, where)
        case RulingKind.ENVIRONMENT:
            return _step("The files are not why. See what is wrong with the device", doctor, where)
        case RulingKind.INCONCLUSIVE if is_hot and tonight and last_good and tonight.subject != last_good.subject:
            bisect = (*history, "--bisect", last_good.night, tonight.night)
            return _step(f"{_COOLING} launch it again in turn with the last good files", bisect, where)
        case RulingKind.INCONCLUSIVE if is_hot:
            return _step(f"{_COOLING} see whether it is fit for the next night, which launches it again", doctor, where)
        case RulingKind.REGRESSION:
            return _step("If this is not intended, see since when and by which files", history, where)
        case RulingKind.IMPROVEMENT:
            return _step("Nothing has to be done. To see since when and by which files", history, where)
        case RulingKind.INCONCLUSIVE | RulingKind.CLEAN:
            return _step("See how much it strayed in earlier nights; the next night rules on it again", history, where)


def accepting(ruling: Ruling, where: Sequence[str]) -> NightStep | None:
    """Return how somebody says that it shall be so, where that is worse than before."""
    command = ("history", ruling.case, "--devices", ruling.address, "--acknowledge", "REASON", "--until", "30d")
    return _step("If it is intended, take it as the new level", command, where) if ruling.kind is RulingKind.REGRESSION else None


def _step(purpose: str, command: Sequence[str], where: Sequence[str]) -> NightStep:
    return NightStep(purpose=purpose, command=words(shlex.join(("quadbench", *command, *where))))
