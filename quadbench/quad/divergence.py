"""Divergence: measures of how far quantized outputs are from float ones (SQNR, Jensen-Shannon), and rank correlation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 16  # with more bins, chance outweighs the effect of a shift of all values
LOWEST_DB = -300.0  # in place of minus infinity, which JSON lacks
FLOAT32_DB = 20 * math.log10(2**-24)  # the rounding noise of float32 itself


def ratio_db(signal: float, noise: float) -> float | None:
    """Return the ratio of signal energy to noise energy in dB; None if either is zero."""
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


def energies(exact: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the signal and noise energies: the sums of squares of `exact` and of `other - exact`, in float64."""
    return float(np.square(exact, dtype=np.float64).sum()), float(np.square(other.astype(np.float64) - exact).sum())


def decibels(signal: float, noise: float) -> float:
    """Return the ratio of signal to noise energy in dB: infinite without noise, LOWEST_DB without signal."""
    ratio = ratio_db(signal, noise)
    return math.inf if noise == 0 else LOWEST_DB if ratio is None else max(ratio, LOWEST_DB)


@dataclass(frozen=True, eq=False, kw_only=True)
class Bins:
    """Histogram bins fitted to one array. `edges` are the bin bounds; each bin holds an equal number of the values."""

    edges: np.ndarray  # (bins + 1,), rising; fewer where values repeat

    def histogram(self, values: np.ndarray) -> np.ndarray:
        """Return the fraction of `values` at each bin edge, as an array (edges,) that sums to 1. A value between two edges counts
        partly for each: the nearer edge gets more (linear interpolation). A value outside all bins counts for the nearest edge.
        """
        place = np.interp(values.ravel().astype(np.float64), self.edges, np.arange(len(self.edges)))
        lower = np.minimum(np.floor(place).astype(np.int64), max(len(self.edges) - 2, 0))
        above = place - lower
        counts = (
            np.bincount(lower, 1 - above, len(self.edges)) + np.bincount(lower + 1, above, len(self.edges))[: len(self.edges)]
        )
        return counts / values.size


def bins_of(output: np.ndarray) -> Bins:
    """Return histogram bins that each hold an equal number of the values in `output`, which a float graph computed."""
    return Bins(edges=np.unique(np.quantile(output.astype(np.float64), np.linspace(0, 1, BINS + 1))))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence of two histograms, base 2: symmetric, 0 if equal, at most 1 (Lin 1991)."""
    present = p + q > 0
    p, q = p[present], q[present]
    apart = (p - q) / (p + q)  # p / m is 1 + apart, with m = (p + q) / 2: exact also where the two are nearly equal
    return max(0.0, float(np.sum(_kl_terms(p, apart) + _kl_terms(q, -apart))) / (2 * math.log(2)))


def _kl_terms(share: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return p ln(p/m) per histogram bin, 0 where p is 0. `share` is p, `apart` is p/m - 1. m is the mean of two histograms."""
    return share * np.log1p(np.where(share > 0, apart, 0.0))


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The Jensen-Shannon divergence (`js`) and MSE of a quantized output against the float output. `signal` is the mean square
    of the float output, for an SQNR of signal / mse.
    """

    js: float
    mse: float
    signal: float


def divergence(exact: np.ndarray, quantized: np.ndarray) -> Divergence:
    """Return a Divergence of `quantized` from `exact`: Jensen-Shannon divergence in bits, and MSE. Bins are fitted to `exact`."""
    wide, bins = exact.astype(np.float64), bins_of(exact)
    return Divergence(
        js=jensen_shannon(bins.histogram(exact), bins.histogram(quantized)),
        mse=float(np.square(quantized - wide).mean()),
        signal=float(np.square(wide).mean()),
    )


@dataclass(frozen=True, kw_only=True)
class DivergenceScore:
    """Mean Jensen-Shannon divergence, MSE and SQNR of several quantized outputs. `sqnr_db` is None if signal or MSE is 0."""

    sqnr_db: float | None
    mse: float
    js: float
    samples: int

    @property
    def noise_db(self) -> float:
        """Return the noise-to-signal ratio in dB, at least FLOAT32_DB: minus `sqnr_db`, or FLOAT32_DB if that is None."""
        return FLOAT32_DB if self.sqnr_db is None else max(-self.sqnr_db, FLOAT32_DB)


def score(divergences: Sequence[Divergence]) -> DivergenceScore:
    """Return a DivergenceScore: mean Jensen-Shannon divergence, mean MSE, and SQNR in dB, computed as mean signal / mean MSE."""
    mse, signal = (float(np.mean([getattr(d, field) for d in divergences])) for field in ("mse", "signal"))
    return DivergenceScore(
        sqnr_db=ratio_db(signal, mse),
        mse=mse,
        js=float(np.mean([d.js for d in divergences])),
        samples=len(divergences),
    )


def spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` of `count` indices, evenly spaced from first to last."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted)).round()})


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's rank correlation tau-b, from -1 to 1 (Kendall 1945); None if all values in one of the lists are equal."""
    upper = np.triu_indices(len(first), 1)
    a, b = (np.sign(np.subtract.outer(v, v)[upper]) for v in (_ranks(first), _ranks(second)))
    weight = math.sqrt(float(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / weight if weight else None


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Return an array with the rank of each value, from 0. Equal values have equal ranks. Infinite values have finite ranks."""
    return np.unique(np.asarray(values, np.float64), return_inverse=True)[1]
