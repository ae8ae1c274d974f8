"""Scripted devices, what jobs need of them, and when each job was at which -> gaps, overlaps, and each owner's share.

Of ten jobs five take any device, four need one of three chips, in turn, and one needs a device by its serial.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

CHIPS = ("SM8750", "SM8650", "SM8550")


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A job at its device. `owner` is the number of its owner."""

    number: int
    owner: int
    device: str
    began: float
    ended: float


def devices(count: int) -> list[dict[str, str]]:
    """Return the attributes of so many slots; a third has each chip."""
    return [{"PhoneSerial": f"R{number}", "PhoneChip": CHIPS[number % len(CHIPS)]} for number in range(count)]


def need_of(number: int, count: int) -> dict[str, str]:
    """Return the attribute that the job with this number requires of its slot, or nothing."""
    match number % 10:
        case 5 | 6 | 7 | 8:
            return {"PhoneChip": CHIPS[(number // 10 + number) % len(CHIPS)]}
        case 9:
            return {"PhoneSerial": f"R{number // 10 % count}"}
    return {}


def expression(need: dict[str, str]) -> str:
    """Return the requirement of a job on its slot as an expression."""
    return " && ".join(f'{name} == "{value}"' for name, value in need.items()) or "True"


def ideal_s(jobs: int, owners: int, count: int, seconds: float) -> float:
    """Return the least time of all jobs: whole rounds at all devices, at those of the chip in most demand, and at one device."""
    needs = Counter(expression(need) for number in range(jobs) for _ in range(owners) if (need := need_of(number, count)))
    serve = Counter(expression({"PhoneChip": device["PhoneChip"]}) for device in devices(count))
    rounds = [-(-asking // serve.get(need, 1)) for need, asking in needs.items()]
    return max([-(-owners * jobs // count), *rounds]) * seconds


def device_figures(stays: Sequence[Stay], seconds: float) -> dict[str, Any]:
    """Return the gaps between two jobs at a device, as seconds and beside the jobs' time, and how many jobs overlapped."""
    gaps = []
    for device in {stay.device for stay in stays}:
        row = sorted((stay for stay in stays if stay.device == device), key=lambda stay: stay.began)
        gaps += [after.began - before.ended for before, after in pairwise(row)]
    if not gaps:
        return {}
    median_s, p90_s = statistics.median(gaps), sorted(gaps)[int(0.9 * (len(gaps) - 1))]
    return {
        "devices_used": len({stay.device for stay in stays}),
        "overlaps": sum(gap < 0 for gap in gaps),
        "gap_median_s": round(median_s, 3),
        "gap_p90_s": round(p90_s, 3),
        "overhead_median": round(median_s / seconds, 4),
        "overhead_p90": round(p90_s / seconds, 4),
        "overhead_all": round(sum(gaps) / (len(gaps) * seconds), 4),
    }


def fairness(stays: Sequence[Stay], submitted: Sequence[float], windows_s: Sequence[float] = (60, 120, 300)) -> dict[str, Any]:
    """Return the second owner's first start after it submitted, and its share of the starts while both had jobs waiting.

    That time is from its submission to the last start of whoever had started all first; the share is also that of its first
    windows.
    """
    starts = [sorted(stay.began for stay in stays if stay.owner == owner) for owner in range(2)]
    if not all(starts):
        return {}
    since, until = submitted[1], min(own[-1] for own in starts)

    def counted(end: float) -> list[int]:
        return [sum(since <= start <= end for start in own) for own in starts]

    whole = counted(until)
    return {
        "second_first_start_s": round(starts[1][0] - since, 2),
        "both_waiting_s": round(until - since, 1),
        "starts_while_both": whole,
        "second_share": round(whole[1] / max(1, sum(whole)), 3),
        "starts_in_first_s": {f"{window:g}": counted(min(until, since + window)) for window in windows_s},
    }
