"""Ending: the rulings of a night -> the exit code that says in one number what came of it; pure."""

from collections.abc import Iterable

from quadbench.artifacts.night import Ruling, RulingKind

ERROR = 1
EXIT_CODES = {
    RulingKind.REGRESSION: 2,
    RulingKind.MISSING: 4,
    RulingKind.INCONCLUSIVE: 3,
    RulingKind.ENVIRONMENT: 5,
    RulingKind.IMPROVEMENT: 0,
    RulingKind.CLEAN: 0,
}  # what counts most is first


def exit_code(rulings: Iterable[Ruling]) -> int:
    """Return the exit code of what counts most among the rulings of a night; 0 where there are none."""
    kinds = {ruling.kind for ruling in rulings}
    return next((code for kind, code in EXIT_CODES.items() if kind in kinds), 0)
