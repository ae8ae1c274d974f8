"""Simulated launches of two sides -> how often a comparison that is looked at 6, 10 and 16 blocks calls them apart, and when.

python bench/looks.py --series 2000
python bench/looks.py --far --series 4000 --seed 100
"""

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np

from quadbench.statistics import MIN_BLOCKS, Looks, Verdict
from quadbench.statistics.launch_comparison import block_differences, compare_launches, share_interval
from quadbench.statistics.multiple_testing import LOOKS, planned_looks

NOISE = (0.005, 0.01, 0.02, 0.04)  # of a launch's logarithm
EFFECTS = (0.0, 0.02, 0.05, 0.1)
TO_SEE = 0.05
FAR_SHARES, FAR_SIZES = (0.0, 0.02, 0.05), (0.2, 0.5)  # of launches; the logarithm by which these are slower
PLANNED_NOISE = (0.01, 0.02, 0.03, 0.04, 0.05)


def verdict_of(rng: np.random.Generator, effect: float, noise: float, margin: float, looks: Looks) -> tuple[Verdict, int]:
    """Return the verdict of one series, and the blocks that it took."""
    count = 2 * looks.at[-1]
    a = np.exp(rng.normal(0, noise, count)).tolist()
    b = ((1 + effect) * np.exp(rng.normal(0, noise, count))).tolist()
    return _looked_at(a, b, margin, looks)


def _looked_at(a: list[float], b: list[float], margin: float, looks: Looks) -> tuple[Verdict, int]:
    for blocks in looks.at:
        compared = compare_launches(a[: 2 * blocks], b[: 2 * blocks], margin=margin, confidence=looks.confidence)
        if compared.verdict is not Verdict.INCONCLUSIVE:
            return compared.verdict, blocks
    return Verdict.INCONCLUSIVE, looks.at[-1]


def planned_verdict(rng: np.random.Generator, effect: float, noise: float) -> tuple[Verdict, int, bool]:
    """Return the verdict of one comparison with --to-see, the blocks that it took, and whether there was a plan at all."""
    a = np.exp(rng.normal(0, noise, 80)).tolist()
    b = ((1 + effect) * np.exp(rng.normal(0, noise, 80))).tolist()
    looks = planned_looks(block_differences(a[: 2 * MIN_BLOCKS], b[: 2 * MIN_BLOCKS]), TO_SEE)
    if looks is None:
        return Verdict.INCONCLUSIVE, MIN_BLOCKS, False
    return *_looked_at(a, b, looks.margin, looks), True


def print_far(series: int, seed: int) -> None:
    """Print how often comparisons err and find effects while some launches of either side are far slower."""
    for share in FAR_SHARES:
        for size in FAR_SIZES if share else (0.0,):
            for noise in (0.005, 0.01):
                for margin, effect in ((0.0, 0.0), (LOOKS.margin, 0.0), (LOOKS.margin, LOOKS.margin), (LOOKS.margin, 0.05)):
                    rng, counts, taken = np.random.default_rng(seed), Counter[Verdict](), 0
                    for _ in range(series):
                        logs = rng.normal(0, noise, (2, 2 * LOOKS.at[-1])) + size * (rng.random((2, 2 * LOOKS.at[-1])) < share)
                        a, b = np.exp(logs[0]).tolist(), ((1 + effect) * np.exp(logs[1])).tolist()
                        verdict, blocks = _looked_at(a, b, margin, LOOKS)
                        counts[verdict] += 1
                        taken += blocks
                    apart = counts[Verdict.WORSE] + counts[Verdict.BETTER]
                    low, high = share_interval(apart, series)
                    told = f"{apart / series:.1%} ({low:.1%} to {high:.1%}) | {counts[Verdict.SAME] / series:.1%}"
                    case = f"{share:.0%} | {size:.0%} | {noise:.1%} | {margin:.0%} | {effect:.0%}"
                    print(f"| {case} | {told} | {taken / series:.1f} |", flush=True)  # noqa: T201


def print_planned(series: int, noises: Sequence[float], effects: Sequence[float], seed: int) -> None:
    """Print how often planned comparisons err at the margin itself, and find the effect that they were planned for."""
    rng = np.random.default_rng(seed)
    for noise in noises:
        for effect in effects:
            planned = [one for one in (planned_verdict(rng, effect, noise) for _ in range(series)) if one[2]]
            counts, blocks = Counter(verdict for verdict, *_ in planned), np.mean([taken for _, taken, _ in planned])
            wrong = counts[Verdict.WORSE] + counts[Verdict.BETTER] + counts[Verdict.SAME] * (effect > 0)
            low, high = share_interval(wrong, len(planned))
            told = f"WORSE {counts[Verdict.WORSE] / len(planned):.1%}, SAME {counts[Verdict.SAME] / len(planned):.1%}"
            case = f"--to-see {TO_SEE:.0%} effect {effect:.1%} noise {noise:.0%}: planned {len(planned) / series:.0%}"
            print(f"{case}, {told}, either {wrong / len(planned):.1%} ({low:.1%} to {high:.1%}), {blocks:.1f} blocks")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--planned", action="store_true", help="comparisons with --to-see alone")
    parser.add_argument("--noise", type=float, nargs="+", default=PLANNED_NOISE, help="of planned comparisons")
    parser.add_argument("--effect", type=float, nargs="+", default=(0.0, TO_SEE / 2, TO_SEE), help="of planned comparisons")
    parser.add_argument("--seed", type=int, default=1, help="of planned comparisons")
    parser.add_argument("--far", action="store_true", help="comparisons with far launches alone")
    options = parser.parse_args()
    if options.far:
        print("| far launches | slower by | noise | margin | effect | WORSE or BETTER | SAME | blocks |")  # noqa: T201
        print("|---|---|---|---|---|---|---|---|")  # noqa: T201
        return print_far(options.series, options.seed)
    planned = (options.series, options.noise, options.effect, options.seed)
    if options.planned:
        return print_planned(*planned)
    rng = np.random.default_rng(0)
    for margin in (0.0, LOOKS.margin):
        for effect in EFFECTS if margin else (0.0,):
            for noise in NOISE:
                results = [verdict_of(rng, effect, noise, margin, LOOKS) for _ in range(options.series)]
                counts = Counter(verdict for verdict, _ in results)
                blocks = np.mean([taken for _, taken in results])
                apart = counts[Verdict.WORSE] + counts[Verdict.BETTER]
                low, high = share_interval(apart, options.series)
                same = counts[Verdict.SAME] / options.series
                told = f"apart {apart / options.series:.1%} ({low:.1%} to {high:.1%}), same {same:.1%}"
                case = f"margin {margin:.0%} effect {effect:.0%} noise {noise:.1%}"
                print(f"{case}: {told}, {blocks:.1f} blocks")  # noqa: T201
    return print_planned(*planned)


if __name__ == "__main__":
    main()
