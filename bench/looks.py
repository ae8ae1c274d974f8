"""Simulated launches of two sides -> how often a comparison that is looked at 6, 10 and 16 blocks calls them apart, and when.

python bench/looks.py --series 2000
"""

import argparse
from collections import Counter

import numpy as np

from quadbench.statistics import LOOKS, Looks, Verdict, compare_launches, interval_of_share

NOISE = (0.005, 0.01, 0.02, 0.04)  # of a launch's logarithm
EFFECTS = (0.0, 0.02, 0.05, 0.1)


def verdict_of(rng: np.random.Generator, effect: float, noise: float, margin: float, looks: Looks) -> tuple[Verdict, int]:
    """Return the verdict of one series, and the blocks that it took."""
    count = 2 * looks.at[-1]
    a = np.exp(rng.normal(0, noise, count)).tolist()
    b = ((1 + effect) * np.exp(rng.normal(0, noise, count))).tolist()
    for blocks in looks.at:
        compared = compare_launches(a[: 2 * blocks], b[: 2 * blocks], margin=margin, confidence=looks.confidence)
        if compared.verdict is not Verdict.INCONCLUSIVE:
            return compared.verdict, blocks
    return Verdict.INCONCLUSIVE, looks.at[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=2000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for margin in (0.0, LOOKS.margin):
        for effect in EFFECTS if margin else (0.0,):
            for noise in NOISE:
                results = [verdict_of(rng, effect, noise, margin, LOOKS) for _ in range(options.series)]
                counts = Counter(verdict for verdict, _ in results)
                blocks = np.mean([taken for _, taken in results])
                apart = counts[Verdict.WORSE] + counts[Verdict.BETTER]
                low, high = interval_of_share(apart, options.series)
                same = counts[Verdict.SAME] / options.series
                told = f"apart {apart / options.series:.1%} ({low:.1%} to {high:.1%}), same {same:.1%}"
                case = f"margin {margin:.0%} effect {effect:.0%} noise {noise:.1%}"
                print(f"{case}: {told}, {blocks:.1f} blocks")  # noqa: T201


if __name__ == "__main__":
    main()
