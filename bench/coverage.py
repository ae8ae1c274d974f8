"""How often the intervals that the README and the documentation quote hold the truth: simulated, at the sizes quoted.

    nice python bench/coverage.py [--series 10000] [--only paired]

Prints a Markdown row for each kind of interval, its size and the distribution of its data: the share of intervals that hold the
truth, with the simulation's standard error. All are at 95 %, but those at looks, which are at 97.8 %.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from quadbench.statistics import Verdict
from quadbench.statistics.launch_comparison import CONFIDENCE, compare_launches, compare_paired, compare_unpaired, share_interval
from quadbench.statistics.multiple_testing import LOOKS

Draw = Callable[[np.random.Generator, int], np.ndarray]
Interval = tuple[float | None, float | None]


def normal(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.standard_normal(size)


def skewed(rng: np.random.Generator, size: int, *, skewness: float) -> np.ndarray:
    """Draw from a gamma distribution of mean 0 and deviation 1; with a skewness of 2 it is the exponential distribution."""
    shape = 4 / skewness**2
    return (rng.gamma(shape, size=size) - shape) / math.sqrt(shape)


DATA: dict[str, Draw] = {
    "normal": normal,
    "skewness 1": partial(skewed, skewness=1.0),
    "exponential, skewness 2": partial(skewed, skewness=2.0),
}
SHARES = (0.05, 0.5)
FEW, MANY = 20, 2000
NIGHTS, CASES = 60, 3
DRAWS = 1000  # of a bootstrap
NOISE = 0.02  # of a launch, on the logarithm of its time


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An interval of so many values from such data; `hold` draws them anew and says whether it holds the truth.

    `is_close` says that its coverage should be within 2 points of `stated`; of the others the page says why it is not.
    """

    name: str
    size: str
    data: str
    hold: Callable[[np.random.Generator], bool]
    stated: float = CONFIDENCE
    is_close: bool = True


def kinds() -> Iterator[Kind]:
    """Yield every kind of interval that is quoted, at the sizes that are."""
    for pairs, (data, draw) in product((4, 6, 8, 12), DATA.items()):
        is_close = pairs > 6 or "exponential" not in data
        yield Kind(name="`paired`", size=f"{pairs} pairs", data=data, hold=partial(holds_mean, draw, pairs), is_close=is_close)
    for pairs, (data, draw) in product((4, 8), DATA.items()):
        hold = partial(bootstrap_holds_mean, draw, pairs)
        yield Kind(name="percentiles of a bootstrap", size=f"{pairs} pairs", data=data, hold=hold, is_close=False)
    for blocks, (data, draw) in product((2, 6, 8, 16), DATA.items()):
        yield Kind(name="`compare_launches`", size=f"{blocks} blocks", data=data, hold=partial(holds_ratio, draw, blocks))
    for data, draw in DATA.items():
        looks = ", ".join(map(str, LOOKS.at))
        hold = partial(holds_at_end, draw)
        yield Kind(name="`compare_launches` at looks", size=f"{looks} blocks", data=data, hold=hold, stated=LOOKS.confidence)
    for launches, (data, draw) in product((2, 6), DATA.items()):
        yield Kind(
            name="`compare_unpaired`", size=f"2 x {launches} launches", data=data, hold=partial(holds_unpaired, draw, launches)
        )
    for tries, share in product((5, FEW, 40, 1000, MANY), (None, *SHARES)):
        data = "any share" if share is None else f"a share of {share:.0%}"
        yield Kind(
            name="`interval_of_share`",
            size=f"{tries} tries",
            data=data,
            hold=partial(holds_share, tries, share),
            is_close=share is None or tries > 40,
        )
    for is_alike in (True, False):
        data = f"5 % alarms, a night's {CASES} cases {'alike' if is_alike else 'independent'}"
        hold = partial(holds_nights, is_alike)
        yield Kind(name="`interval_of_share` over nights", size=f"{NIGHTS} nights", data=data, hold=hold, is_close=False)


def holds(interval: Interval, truth: float) -> bool:
    low, high = interval
    if low is None or high is None:
        raise ValueError("there is no interval of so few values")
    return low <= truth <= high


def holds_mean(draw: Draw, pairs: int, rng: np.random.Generator) -> bool:
    told = compare_paired(draw(rng, pairs).tolist())
    return holds((told.low, told.high), 0.0)


def bootstrap_holds_mean(draw: Draw, pairs: int, rng: np.random.Generator) -> bool:
    """Take the interval that pages of before 2026-11-28 quote: percentiles of the mean over pairs drawn anew."""
    means = rng.choice(draw(rng, pairs), (DRAWS, pairs)).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return holds((float(low), float(high)), 0.0)


def launches_of(draw: Draw, rng: np.random.Generator, count: int) -> list[float]:
    """Draw the times of launches, whose logarithms have a mean of 0."""
    return [float(time) for time in np.exp(NOISE * draw(rng, count))]


def holds_ratio(draw: Draw, blocks: int, rng: np.random.Generator) -> bool:
    told = compare_launches(launches_of(draw, rng, 2 * blocks), launches_of(draw, rng, 2 * blocks))
    return holds((told.low, told.high), 1.0)


def holds_at_end(draw: Draw, rng: np.random.Generator) -> bool:
    """Compare as `quadbench compare` does, up to the first verdict, and take the interval that is shown then."""
    a, b = (launches_of(draw, rng, 2 * LOOKS.at[-1]) for _ in range(2))
    for blocks in LOOKS.at:
        told = compare_launches(a[: 2 * blocks], b[: 2 * blocks], confidence=LOOKS.confidence)
        if told.verdict is not Verdict.INCONCLUSIVE:
            break
    return holds((told.low, told.high), 1.0)


def holds_unpaired(draw: Draw, launches: int, rng: np.random.Generator) -> bool:
    told = compare_unpaired(launches_of(draw, rng, launches), launches_of(draw, rng, launches))
    return holds((told.low, told.high), 1.0)


def holds_share(tries: int, share: float | None, rng: np.random.Generator) -> bool:
    truth = float(rng.uniform()) if share is None else share
    return holds(share_interval(int(rng.binomial(tries, truth)), tries), truth)


def holds_nights(is_alike: bool, rng: np.random.Generator) -> bool:
    """Count nights as `quadbench.nightly.night_report` does, each by the share of its cases that alarmed."""
    alarms = rng.random((NIGHTS, 1 if is_alike else CASES)) < SHARES[0]
    return holds(share_interval(float(alarms.mean(1).sum()), NIGHTS), SHARES[0])


def coverage(kind: Kind, series: int) -> float:
    """Return the share of intervals that hold the truth."""
    rng = np.random.default_rng(0)
    return sum(kind.hold(rng) for _ in range(series)) / series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000, help="intervals of each kind (default: 10000)")
    parser.add_argument("--only", default="", help="only kinds whose name holds this (default: all)")
    options = parser.parse_args()
    series = options.series
    print("| interval | of | data | holds the truth |\n|---|---|---|---:|")  # noqa: T201
    for kind in (kind for kind in kinds() if options.only in kind.name):
        share = coverage(kind, series)
        error = math.sqrt(share * (1 - share) / series)
        print(f"| {kind.name} | {kind.size} | {kind.data} | {share:.1%} ± {error:.1%} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
