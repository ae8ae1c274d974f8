"""A kind of noise, a length, steps and a seed -> a series of positive values and the places where its level changes for good."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logs = NDArray[np.float64]
Rng = np.random.Generator
LENGTHS = (20, 40, 60, 120, 250, 500, 1000)
STEPS = (0.02, 0.03, 0.05, 0.08, 0.15)
_SHORT = 60  # shorter series get one step, others one or three
_SIGMA = 0.01


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A series with the indexes of the first values after its steps; without any, it is clean."""

    kind: str
    length: int
    step: float
    values: list[float]
    places: list[int]


def series(seeds: range, per_step: int, lengths: tuple[int, ...] = LENGTHS) -> Iterator[Labelled]:
    """Yield a clean series per seed, kind and length, and `per_step` series for each step and number of steps."""
    for kind in KINDS:
        for length in lengths:
            for seed in seeds:
                yield labelled(seed, kind, length)
            for step in STEPS:
                for count in (1,) if length < _SHORT else (1, 3):
                    for seed in seeds[:per_step]:
                        yield labelled(seed, kind, length, step, count)


def labelled(seed: int, kind: str, length: int, step: float = 0.0, count: int = 0) -> Labelled:
    """Return a series. A single step goes up; of three, each goes up or down."""
    rng = np.random.default_rng([seed, length, list(KINDS).index(kind), round(step * 1000), count])
    logs = KINDS[kind](rng, length)
    apart = length / (count + 1)
    places = sorted(round(apart * (number + 1) + rng.uniform(-0.15, 0.15) * apart) for number in range(count))
    for place in places:
        logs[place:] += np.log1p(step) * (rng.choice([-1, 1]) if count > 1 else 1)
    return Labelled(kind=kind, length=length, step=step, values=(100 * np.exp(logs)).tolist(), places=places)


def _white(rng: Rng, n: int) -> Logs:
    return rng.normal(0, rng.choice([0.005, 0.01, 0.02, 0.04]), n)


def _autoregressive(rng: Rng, n: int, rho: float, sigma: float) -> Logs:
    steps, logs = rng.normal(0, sigma * np.sqrt(1 - rho * rho), n), np.empty(n)
    logs[0] = rng.normal(0, sigma)
    for place in range(1, n):
        logs[place] = rho * logs[place - 1] + steps[place]
    return logs


def _ar1(rng: Rng, n: int) -> Logs:
    return _autoregressive(rng, n, rng.choice([0.3, 0.5, 0.7]), _SIGMA)


def _slow_ar1(rng: Rng, n: int) -> Logs:
    return _autoregressive(rng, n, 0.9, _SIGMA) + rng.normal(0, _SIGMA, n)


def _weekly(rng: Rng, n: int) -> Logs:
    return np.where((np.arange(n) + rng.integers(7)) % 7 >= 5, rng.choice([0.02, 0.04]), 0) + rng.normal(0, _SIGMA, n)


def _outliers(rng: Rng, n: int) -> Logs:
    return rng.normal(0, _SIGMA, n) + np.where(rng.random(n) < rng.choice([0.02, 0.05, 0.1]), rng.exponential(0.2, n), 0)


def _heavy_tails(rng: Rng, n: int) -> Logs:
    return _SIGMA * rng.standard_t(rng.choice([2, 3]), n)


def _skewed(rng: Rng, n: int) -> Logs:
    return _SIGMA * (rng.exponential(1, n) - 1)


def _speeds_that_stay(rng: Rng, n: int) -> Logs:
    slow = np.cumsum(rng.random(n) < rng.choice([0.1, 0.2, 0.4])) % 2 == 1
    return rng.normal(0, _SIGMA, n) + np.where(slow, rng.choice([0.06, 0.1, 0.2]), 0)


def _speeds_at_random(rng: Rng, n: int) -> Logs:
    slow = rng.random(n) < rng.choice([0.2, 0.3, 0.5])
    return rng.normal(0, _SIGMA, n) + np.where(slow, rng.choice([0.06, 0.1, 0.2]), 0)


def _thermal_waves(rng: Rng, n: int) -> Logs:
    turns = np.arange(n) / rng.choice([20, 40, 90]) + rng.random()
    return rng.normal(0, _SIGMA, n) + rng.choice([0.01, 0.02]) * np.sin(2 * np.pi * turns)


def _variance_step(rng: Rng, n: int) -> Logs:
    later = np.arange(n) >= rng.integers(n // 4 + 1, 3 * n // 4 + 1)
    return rng.normal(0, 1, n) * np.where(later, rng.choice([0.02, 0.04]), _SIGMA)


def _bursts(rng: Rng, n: int) -> Logs:
    return rng.normal(0, 1, n) * np.where(np.cumsum(rng.random(n) < 0.05) % 2 == 1, 0.04, 0.008)


def _drift(rng: Rng, n: int) -> Logs:
    return rng.normal(0, _SIGMA, n) + rng.choice([-1, 1]) * rng.choice([0.02, 0.05]) * np.arange(n) / n


def _ties(rng: Rng, n: int) -> Logs:
    grain = rng.choice([0.01, 0.02, 0.03])
    values = np.exp(rng.normal(0, _SIGMA, n) + rng.uniform(-0.5, 0.5) * grain)
    return np.log(np.maximum(np.round(values / grain), 1) * grain)


def _builds(rng: Rng, n: int) -> Logs:
    length = int(rng.integers(2, 8))
    return np.repeat(rng.normal(0, 0.03, n // length + 2), length)[:n] + rng.normal(0, _SIGMA, n)


def _missing(rng: Rng, n: int) -> Logs:
    return _ar1(rng, 2 * n)[np.sort(rng.choice(2 * n, n, replace=False))]


def _exact(rng: Rng, n: int) -> Logs:
    return np.where(rng.random(n) < 0.02, 0.001, 0.0)


def _brief_stays(rng: Rng, n: int) -> Logs:
    logs = rng.normal(0, _SIGMA, n)
    for _ in range(max(1, n // 60)):
        first = int(rng.integers(0, n))
        logs[first : first + int(rng.integers(2, 6))] += rng.choice([0.05, 0.1])
    return logs


def _wandering(rng: Rng, n: int) -> Logs:
    logs = rng.normal(0, 0.008, n) + np.cumsum(rng.normal(0, 0.0007, n)) + _bursts(rng, n) / 2
    for _ in range(n // 50):
        first = int(rng.integers(0, n))
        logs[first : first + int(rng.integers(1, 8))] += rng.normal(0, 0.05)
    return logs + np.where(rng.random(n) < 0.02, rng.exponential(0.1, n), 0)


def _mixed(rng: Rng, n: int) -> Logs:
    names = rng.choice([name for name in KINDS if name not in _NEVER_MIXED], 3, replace=False)
    parts = [weight * KINDS[name](rng, n) for name, weight in zip(names, (1, 0.7, 0.5), strict=True)]
    return np.asarray(sum(parts))


_NEVER_MIXED = ("mixed", "exact", "ties", "speeds that stay", "speeds at random")
KINDS: dict[str, Callable[[Rng, int], Logs]] = {
    "white": _white,
    "AR(1)": _ar1,
    "slow AR(1)": _slow_ar1,
    "weekly": _weekly,
    "outliers": _outliers,
    "heavy tails": _heavy_tails,
    "skewed": _skewed,
    "speeds that stay": _speeds_that_stay,
    "speeds at random": _speeds_at_random,
    "thermal waves": _thermal_waves,
    "variance step": _variance_step,
    "bursts": _bursts,
    "drift": _drift,
    "ties": _ties,
    "builds": _builds,
    "missing": _missing,
    "exact": _exact,
    "brief stays": _brief_stays,
    "wandering": _wandering,
    "mixed": _mixed,
}
