"""Acknowledging: a person's word about a case and the rulings that stand -> the rulings that supersede them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from quadbench.artifacts.night import Acknowledgement, Measurement, Ruling, RulingKind

_ACKNOWLEDGED = {RulingKind.REGRESSION, RulingKind.INCONCLUSIVE, RulingKind.ENVIRONMENT}


def acknowledged(
    word: Acknowledgement, rulings: Iterable[Ruling], nights: Sequence[Measurement], now: datetime
) -> tuple[Ruling, ...]:
    """Return a CLEAN ruling for each from the word's night on that it is about and that somebody would have to look at.

    `nights` are those that the rulings may be on.
    """
    covered = {(night.night, night.device) for night in nights if night.measured_at >= word.since}
    cause = f"acknowledged by {word.owner} until {word.until:%Y-%m-%d}: {word.reason}"
    return tuple(
        replace(ruling, kind=RulingKind.CLEAN, cause=cause, told_at=now)
        for ruling in rulings
        if ruling.kind in _ACKNOWLEDGED and (ruling.night, ruling.device) in covered and _is_about(word, ruling)
    )


def _is_about(word: Acknowledgement, ruling: Ruling) -> bool:
    wanted = ((word.device, ruling.device), (word.task, ruling.task), (word.key, ruling.key))
    return word.case == ruling.case and all(name is None or name == other for name, other in wanted)
