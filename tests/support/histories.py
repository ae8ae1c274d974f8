"""Histories: nights of which the latest are slower -> the history of their case on a device, ruled on and acknowledged."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from quadbench.artifacts.night_record import Acknowledgement, Measurement, Ruling, RulingKind
from quadbench.nightly.history import case_history
from quadbench.nightly.history_formats import CaseData
from quadbench.nightly.verdicts import missing_ruling
from support.night_series import FIRST, NEW, TASK, night, night_id, steady

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WORD = Acknowledgement(
    case="restyle-s25",
    night=night_id(20),
    reason="four more steps",
    owner="ana@lab",
    made_at=NOW,
    since=FIRST + timedelta(days=20),
    until=NOW + timedelta(days=30),
)
SLOWER = [*steady(20), *(night(number, 1.6 + 0.01 * (number % 2), subject=NEW) for number in range(20, 30))]
REGRESSION = replace(
    missing_ruling(night_id(20), "restyle-s25", "adb:R5CX", "s25", cause="it is 7.0 % slower", owner=None, now=FIRST),
    kind=RulingKind.REGRESSION,
    task=TASK,
    key="end_to_end",
)


def on(device: str, nights: Sequence[Measurement]) -> list[Measurement]:
    """The same nights on another device."""
    return [replace(one, device=f"adb:{device}", address=device) for one in nights]


def told(
    nights: Sequence[Measurement],
    rulings: Sequence[Ruling] = (),
    words: Sequence[Acknowledgement] = (),
    *,
    is_whole: bool = False,
) -> CaseData:
    return CaseData(history=case_history(nights, rulings, words, is_whole=is_whole), nights=nights)
