"""Recognition of two modes in a time series, such as two speeds of one device, and the series without the jumps between them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MIN_VALUES = 20  # least number of values in which modes are recognised
_MIN_SHARE = 0.08  # least share of the values in the rarer mode
_MIN_GAP = 5.0  # least distance of the modes, in standard deviations within a mode
_MIDDLE, _MAX_BETWEEN = 0.3, 0.05  # at most so many values lie in the gap without so much at either end
_MIN_SWITCHES = 5  # a step that is taken back has two
_PARTS, _MIN_PARTS, _LEAST_OF_SHARE = 4, 3, 0.3  # of so many parts, so many have both modes, at this part of their usual share
_LASTS, _LASTS_TIMES = 8, 8.0  # least number of values of a stay that is no visit, and least ratio to the mean of other stays
_PLACES = 24  # tried places of a step in a series whose modes are only seen on either side of it
_MAX_RATIO = 1.4  # of the gaps before and after such a step
_MAD_OF_NORMAL = 0.6745
_MIN_DEVIATION = 1e-5  # of logarithms that repeat exactly


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Two modes of a time series. `gap` is the logarithm of slow / fast; `is_slow` has shape (values,).

    `flat` are the logarithms of the values with the rarer mode moved onto the more frequent one. A stay in the rarer mode that
    lasts over eight times longer than the others is a change, and is not moved.
    """

    gap: float
    is_slow: NDArray[np.bool_]
    flat: NDArray[np.float64]


def find_modes(logs: NDArray[np.float64]) -> Modes | None:
    """Return the two modes of a series of logarithms, or None if it has not two that alternate.

    Modes are clearly apart, hardly any value lies between them, and both return all along the series. If a step hides them,
    they are found on either side of it.
    """
    whole = _modes_within(logs)
    parts = [(0, whole)] if whole else _beside_a_step(logs)
    if not parts:
        return None
    is_slow = np.concatenate([slow for _, (slow, _) in parts])
    gaps = np.concatenate([np.full(slow.size, gap) for _, (slow, gap) in parts])
    usual = bool(2 * is_slow.sum() > is_slow.size)
    moved = (is_slow != usual) & ~_lasting(is_slow, usual)
    return Modes(gap=float(np.median(gaps)), is_slow=is_slow, flat=logs + np.where(moved, gaps if usual else -gaps, 0.0))


_Part = tuple[NDArray[np.bool_], float]  # which values are slow, and the gap


def _modes_within(logs: NDArray[np.float64]) -> _Part | None:
    if logs.size < MIN_VALUES:
        return None
    slow = logs > _cut(logs)[0]
    if slow.all() or not slow.any():
        return None
    low, high = float(np.median(logs[~slow])), float(np.median(logs[slow]))
    gap = high - low
    deviation = float(np.median(np.abs(logs - np.where(slow, high, low)))) / _MAD_OF_NORMAL
    between = (logs > low + _MIDDLE * gap) & (logs < high - _MIDDLE * gap)
    share = float(slow.mean())
    is_apart = gap >= _MIN_GAP * max(deviation, _MIN_DEVIATION) and float(between.mean()) <= _MAX_BETWEEN
    if not is_apart or min(share, 1 - share) < _MIN_SHARE or int((slow[1:] != slow[:-1]).sum()) < _MIN_SWITCHES:
        return None
    shares = [float(part.mean()) for part in np.array_split(slow, _PARTS)]
    both = [part >= _LEAST_OF_SHARE * share and 1 - part >= _LEAST_OF_SHARE * (1 - share) for part in shares]
    return (slow, gap) if sum(both) >= _MIN_PARTS else None


def _cut(logs: NDArray[np.float64]) -> tuple[float, float]:
    """Return the cut of values into two groups with the least squared error (exact 2-means), and that error."""
    ordered = np.sort(logs - logs.mean())
    count = np.arange(1, ordered.size)
    sums, squares = np.cumsum(ordered), np.cumsum(ordered**2)
    error = squares[-1] - sums[:-1] ** 2 / count - (sums[-1] - sums[:-1]) ** 2 / (ordered.size - count)
    best = int(np.argmin(error))
    return float(logs.mean() + (ordered[best] + ordered[best + 1]) / 2), float(error[best])


def _beside_a_step(logs: NDArray[np.float64]) -> list[tuple[int, _Part]]:
    """Return the modes before and after the place where they fit best, with the index at which each part begins; or nothing."""
    best, least = list[tuple[int, _Part]](), np.inf
    for at in range(MIN_VALUES, logs.size - MIN_VALUES + 1, max(1, logs.size // _PLACES)):
        before, after = _modes_within(logs[:at]), _modes_within(logs[at:])
        if before and after and 1 / _MAX_RATIO < before[1] / after[1] < _MAX_RATIO:
            error = _cut(logs[:at])[1] + _cut(logs[at:])[1]
            if error < least:
                best, least = [(0, before), (at, after)], error
    return best


def _lasting(is_slow: NDArray[np.bool_], usual: bool) -> NDArray[np.bool_]:
    """Return which values belong to a stay in the rarer mode that is far longer than its other stays."""
    lasting = np.zeros(is_slow.size, dtype=np.bool_)
    edges = [0, *(np.flatnonzero(is_slow[1:] != is_slow[:-1]) + 1).tolist(), is_slow.size]
    stays = [(begin, end) for begin, end in pairwise(edges) if bool(is_slow[begin]) is not usual]
    total = sum(end - begin for begin, end in stays)
    for begin, end in stays:
        others = (total - (end - begin)) / max(len(stays) - 1, 1)
        lasting[begin:end] = end - begin >= max(_LASTS, _LASTS_TIMES * others)
    return lasting
