"""Ending: a night -> the exit code that says in one number what came of it; pure."""

from quadbench.artifacts.night import Night, RulingKind
from quadbench.report.night import WORST_FIRST

ERROR = 1
_EXIT_CODES = {
    RulingKind.REGRESSION: 2,
    RulingKind.INCONCLUSIVE: 3,
    RulingKind.MISSING: 4,
    RulingKind.ENVIRONMENT: 5,
    RulingKind.IMPROVEMENT: 0,
}


def exit_code(night: Night) -> int:
    """Return the exit code of what counts most among a night's rulings: ERROR where that is 0 and a measurement has none."""
    kinds = {ruling.kind for ruling in night.rulings}
    ruled = {(ruling.case, ruling.device) for ruling in night.rulings}
    is_whole = all((one.case, one.device) in ruled for one in night.measurements)
    return next((_EXIT_CODES[kind] for kind in WORST_FIRST if kind in kinds), 0) or (0 if is_whole else ERROR)
