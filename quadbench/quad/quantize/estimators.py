"""Estimators: what was seen of a tensor -> the range that its encoding is made for."""

from dataclasses import dataclass
from typing import TypeAlias, assert_never

import numpy as np

from quadbench.quad.quantize.encodings import Range, limits

ENDS = 50  # an end of the range is tried at this many places between the observed one and zero


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """The least and the greatest value."""


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """The range without the same small share of values at either end, so that `percent` % of them lie within."""

    percent: float


@dataclass(frozen=True, kw_only=True)
class LeastError:
    """The range under which clipping and rounding together cost the least squared error in the encoding's bits."""


Estimator: TypeAlias = MinMax | Percentile | LeastError


@dataclass(frozen=True, kw_only=True)
class RangeRule:
    """The estimator of a tensor's range, and the headroom by which both of its ends are multiplied."""

    estimator: Estimator
    headroom: float = 1.0

    @property
    def counts_values(self) -> bool:
        """Say whether a range follows from how values are spread, and not from their ends alone."""
        return not isinstance(self.estimator, MinMax)

    def range_of(self, seen: Range, counts: np.ndarray | None, dtype: str) -> Range:
        """Return the range. `counts` (bins,) are those of the values over `seen`, None where the rule needs none."""
        return _estimated(self.estimator, seen, counts, dtype).scaled(self.headroom)


PLAIN_RULES = {"uint16": RangeRule(estimator=MinMax()), "uint8": RangeRule(estimator=MinMax())}


def _estimated(estimator: Estimator, seen: Range, counts: np.ndarray | None, dtype: str) -> Range:
    match estimator:
        case MinMax():
            return seen
        case Percentile(percent=percent):
            assert counts is not None
            return _percentile(seen, counts, percent)
        case LeastError():
            assert counts is not None
            return _least_error(seen, counts, dtype)
        case _:
            assert_never(estimator)


def _percentile(seen: Range, counts: np.ndarray, percent: float) -> Range:
    """Cut the bins at either end that hold no more than half of what may lie outside."""
    outside = counts.sum() * (1 - percent / 100) / 2
    edges = _edges(seen, len(counts))
    first = int(np.searchsorted(np.cumsum(counts), outside, side="right"))
    last = int(np.searchsorted(np.cumsum(counts[::-1]), outside, side="right"))
    return Range(low=float(edges[first]), high=float(edges[len(counts) - last]))


def _least_error(seen: Range, counts: np.ndarray, dtype: str) -> Range:
    """Try ENDS places for either end.

    A value outside costs the square of its distance, one inside a twelfth of the square of a step, whatever the end.
    """
    edges = _edges(seen, len(counts))
    middles = (edges[:-1] + edges[1:]) / 2
    shares = np.linspace(1, 0, ENDS, endpoint=False)
    lows, highs = min(seen.low, 0.0) * shares, max(seen.high, 0.0) * shares
    below = np.square(np.maximum(lows[:, None] - middles, 0)) @ counts  # (ENDS, bins) @ (bins,) -> (ENDS,)
    above = np.square(np.maximum(middles - highs[:, None], 0)) @ counts
    least, greatest = limits(dtype)
    steps = (highs - lows[:, None]) / (greatest - least)  # (ENDS, ENDS)
    error = below[:, None] + above + counts.sum() * np.square(steps) / 12
    low, high = np.unravel_index(int(error.argmin()), error.shape)
    return Range(low=float(lows[low]), high=float(highs[high]))


def _edges(seen: Range, bins: int) -> np.ndarray:
    return np.linspace(seen.low, seen.high, bins + 1)
