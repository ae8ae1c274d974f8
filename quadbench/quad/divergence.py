"""Divergence: float outputs + quantized ones -> how far they are apart; two measures of that -> their rank agreement."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 256


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Equal bins over the float run's range; values outside it count in the outermost ones."""

    low: float
    high: float
    count: int = BINS

    def histogram(self, values: np.ndarray) -> np.ndarray:
        """Return the share of the values in each bin, (count,)."""
        width = (self.high - self.low) / self.count or 1.0
        index = np.clip(np.floor((values.ravel().astype(np.float64) - self.low) / width), 0, self.count - 1)
        return np.bincount(index.astype(np.int64), minlength=self.count) / values.size


def bins_over(outputs: Sequence[np.ndarray], count: int = BINS) -> Bins:
    """Return bins from the least to the greatest value of all outputs together."""
    return Bins(low=float(min(o.min() for o in outputs)), high=float(max(o.max() for o in outputs)), count=count)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two histograms to base 2: symmetric, 0 for equal ones, at most 1 (Lin 1991)."""
    middle = (p + q) / 2
    return max(0.0, (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    present = p > 0
    return float(np.sum(p[present] * np.log2(p[present] / q[present])))


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The divergence of one output: Jensen-Shannon over histograms, mean squared error, and the float output's mean square."""

    js: float
    mse: float
    signal: float


def divergence(exact: np.ndarray, quantized: np.ndarray, bins: Bins) -> Divergence:
    """Measure how far `quantized` is from `exact`; both have the same shape."""
    wide = exact.astype(np.float64)
    return Divergence(
        js=jensen_shannon(bins.histogram(exact), bins.histogram(quantized)),
        mse=float(np.square(quantized - wide).mean()),
        signal=float(np.square(wide).mean()),
    )


@dataclass(frozen=True, kw_only=True)
class DivergenceScore:
    """Mean divergences over samples; the SQNR is that of all samples together, None where nothing differs."""

    js: float
    mse: float
    sqnr_db: float | None
    samples: int


def score(divergences: Sequence[Divergence]) -> DivergenceScore:
    """Return the means of divergences over samples: E_x[D]."""
    mse, signal = (float(np.mean([getattr(d, field) for d in divergences])) for field in ("mse", "signal"))
    return DivergenceScore(
        js=float(np.mean([d.js for d in divergences])),
        mse=mse,
        sqnr_db=10 * math.log10(signal / mse) if mse > 0 and signal > 0 else None,
        samples=len(divergences),
    )


def spread(count: int, wanted: int) -> list[int]:
    """Choose at most `wanted` of `count` indices, evenly from the first to the last: the samples of a costly comparison."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted)).round()})


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the rank agreement from -1 to 1, ties allowed (tau-b, Kendall 1945); None if one of them ranks nothing."""
    upper = np.triu_indices(len(first), 1)
    a, b = (np.sign(np.subtract.outer(v, v)[upper]) for v in (_ranks(first), _ranks(second)))
    weight = math.sqrt(float(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / weight if weight else None


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Return ranks instead of values, as infinity minus infinity is no number."""
    return np.unique(np.asarray(values, np.float64), return_inverse=True)[1]
