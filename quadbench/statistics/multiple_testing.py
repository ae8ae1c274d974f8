"""Verdicts corrected for multiple testing: several interim analyses (looks) of a comparison, and many metrics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

import numpy as np

from quadbench.statistics import launch_comparison
from quadbench.statistics.intervals import MAX_BLOCKS, is_unlikely, sign_flip_p, t_p, t_quantile
from quadbench.statistics.launch_comparison import CONFIDENCE, LAUNCHES_PER_BLOCK, MIN_BLOCKS, Comparison, Verdict

# The two-sided level of each of K looks that keeps the total error probability at 0.05: Pocock 1977, table 1.
_LEVELS = {1: 0.05, 2: 0.0294, 3: 0.0221, 4: 0.0182, 5: 0.0158}
# Plans tend to be made when the first blocks happen to differ little, so their spread is too small. At the full level, wrong
# verdicts were 7.9 % of planned comparisons at worst, at half of it about 5 %, as simulated (docs/measured/archive/verdicts.md).
_OF_PLANNED = 0.5
_POWER = 0.9  # power with which a planned number of blocks detects its effect

TO_TELL = 0.05  # the difference for which reports give the number of launches needed
MARGIN_OF_FEW = 0.05  # below MIN_BLOCKS: neighbouring launches share more of the machine's luck than their spread shows
_LEVEL = 1 - CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Planned interim analyses (looks) of a comparison: one at each block count in `at`, until the first conclusive verdict.

    Builds that differ by less than `margin` are the same; a difference of twice the margin should be detected. `is_planned`: the
    looks follow from the spread of the first blocks, which are analysed too.
    """

    at: tuple[int, ...]
    margin: float = launch_comparison.EQUIVALENCE_MARGIN
    is_planned: bool = False

    @property
    def confidence(self) -> float:
        """Return the confidence level for each interim test. It keeps the chance of any wrong verdict overall at about 5 %."""
        level = _LEVELS[len(self.at)]
        return 1 - (level * _OF_PLANNED if self.is_planned else level)


LOOKS = Looks(at=(MIN_BLOCKS, 10, 16))


def planned_looks(differences: Sequence[float], to_see: float) -> Looks | None:
    """Plan interim tests (Looks) so that they detect a change of `to_see`. Return None if MAX_BLOCKS blocks are too few.

    The margin is half of the effect. The interval and the error of the mean (at 90 %) must fit into that half at the last look.
    """
    if len(differences) < 2 or not 0 < to_see < math.inf:
        raise ValueError(f"a plan for {to_see} from {len(differences)} blocks; expected an effect above 0 and two blocks or more")
    std, margin = float(np.std(differences, ddof=1)), to_see / 2
    room = math.log1p(to_see) - math.log1p(margin)
    for last in range(MIN_BLOCKS, MAX_BLOCKS + 1):
        at = dict.fromkeys(max(MIN_BLOCKS, math.ceil(last * look / LOOKS.at[-1])) for look in LOOKS.at)  # like LOOKS
        looks = Looks(at=tuple(at), margin=margin, is_planned=True)
        if std * reach(last, looks.confidence) <= room:
            return looks
    return None


def reach(blocks: int, confidence: float) -> float:
    """Return by how many standard deviations of block differences an effect must exceed the margin for 90 % power."""
    return (t_quantile((1 + confidence) / 2, blocks - 1) + t_quantile(_POWER, blocks - 1)) / math.sqrt(blocks)


@dataclass(frozen=True, kw_only=True)
class JointVerdict:
    """The verdict on one of several jointly tested metrics of builds A and B. `ratio` is B / A with its 95 % interval.

    `p` assumes equal builds and is adjusted for all metrics tested together. `claim` is the verdict even with few blocks;
    `verdict` is INCONCLUSIVE below MIN_BLOCKS blocks. `launches_needed` is set if the claim is INCONCLUSIVE: about how many
    launches per build would show a difference of TO_TELL; None if no affordable number would.
    """

    blocks: int
    ratio: float
    low: float
    high: float
    p: float
    claim: Verdict
    launches_needed: int | None

    @property
    def verdict(self) -> Verdict:
        """Return the verdict corrected for the number of metrics: `claim`, or INCONCLUSIVE with fewer than MIN_BLOCKS blocks."""
        return self.claim if self.blocks >= MIN_BLOCKS else Verdict.INCONCLUSIVE


def judge_together(
    figures: Sequence[tuple[Sequence[float], Sequence[float]]], *, margin: float = launch_comparison.EQUIVALENCE_MARGIN
) -> list[JointVerdict]:
    """Return one JointVerdict per metric, tested together. `figures` lists one pair (A's values, B's values) per metric.

    WORSE and BETTER need the whole interval beyond the margin. They also need a t-test p of at most 0.05 after Holm's
    correction for all metrics. From MIN_BLOCKS blocks on, both use the differences of blocks. An exact sign-flip test must then
    agree, and an interval within the margin is SAME. With fewer blocks, both use two samples with pooled spread, which a linear
    drift widens. The margin is then at least MARGIN_OF_FEW, and nothing is SAME. A block has two values per build, in order.
    """
    alone = [_alone(a, b) for a, b in figures]
    return [_judged(one, p, margin, len(figures)) for one, p in zip(alone, holm([one.p for one in alone]), strict=True)]


def adjust_verdicts(compared: Sequence[Comparison], confidence: float) -> list[Comparison]:
    """Return the list of Comparisons, with WORSE or BETTER made INCONCLUSIVE where the Holm-adjusted p exceeds 1 - `confidence`.

    The p of each t-test is computed from its interval at `confidence`.
    """
    adjusted = holm([_p_of(one, confidence) for one in compared])
    same = [one.verdict is Verdict.SAME or p <= 1 - confidence for one, p in zip(compared, adjusted, strict=True)]
    return [one if is_told else replace(one, verdict=Verdict.INCONCLUSIVE) for one, is_told in zip(compared, same, strict=True)]


def _p_of(one: Comparison, confidence: float) -> float:
    if one.ratio is None or one.high is None:
        return 1.0
    degrees = one.blocks - one.far_blocks - 1
    error = math.log(one.high / one.ratio) / t_quantile((1 + confidence) / 2, degrees)
    return t_p(math.log(one.ratio), error, degrees)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's method (1979). With limit 0.05, the chance of any false positive is at most 5 %."""
    adjusted, highest = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


@dataclass(frozen=True, kw_only=True)
class _SingleFigure:
    """The t-test of one metric's log(B / A). `differences` has log(B / A) per block; `mean` ± `half` is the 95 % interval."""

    differences: list[float]
    mean: float
    half: float
    p: float
    std: float


def _alone(a: Sequence[float], b: Sequence[float]) -> _SingleFigure:
    blocks = len(a) // LAUNCHES_PER_BLOCK
    if len(a) != len(b) or blocks == 0 or len(a) % LAUNCHES_PER_BLOCK:
        raise ValueError(f"side A has {len(a)} launches and side B {len(b)}; expected complete A B B A blocks")
    if not all(0 < value < math.inf for value in (*a, *b)):
        raise ValueError("a launch's value is not positive and finite; expected times or bytes above 0, as ratios are compared")
    first, second = [math.log(value) for value in a], [math.log(value) for value in b]
    pairs = [one - other for one, other in zip(second, first, strict=True)]
    differences = [(one + other) / LAUNCHES_PER_BLOCK for one, other in zip(pairs[::2], pairs[1::2], strict=True)]
    # The mean of two launches, less that of two others, varies as one launch does.
    samples = [differences] if blocks >= MIN_BLOCKS else [first, second]
    degrees = sum(len(sample) - 1 for sample in samples)
    mean, std = fmean(differences), math.sqrt(sum(map(_squares, samples)) / degrees)
    error = std / math.sqrt(blocks)
    half = t_quantile((1 + CONFIDENCE) / 2, degrees) * error
    return _SingleFigure(differences=differences, mean=mean, half=half, p=t_p(mean, error, degrees), std=std)


def _squares(sample: Sequence[float]) -> float:
    middle = fmean(sample)
    return math.fsum((value - middle) ** 2 for value in sample)


def _judged(alone: _SingleFigure, p: float, margin: float, together: int) -> JointVerdict:
    low, high, blocks = alone.mean - alone.half, alone.mean + alone.half, len(alone.differences)
    claim = launch_comparison.verdict_between(low, high, margin if blocks >= MIN_BLOCKS else max(margin, MARGIN_OF_FEW))
    if claim is Verdict.SAME:
        is_sure = blocks >= MIN_BLOCKS
    else:
        is_sure = p <= _LEVEL and (not MIN_BLOCKS <= blocks <= MAX_BLOCKS or is_unlikely(sign_flip_p(alone.differences)))
    claim = claim if is_sure else Verdict.INCONCLUSIVE
    launches_needed = None
    if claim is Verdict.INCONCLUSIVE:  # the fewest that detect TO_TELL at this spread
        enough = (count for count, most in _most_spread(together) if alone.std <= most)
        launches_needed = next((count * LAUNCHES_PER_BLOCK for count in enough), None)
    return JointVerdict(
        blocks=blocks,
        ratio=math.exp(alone.mean),
        low=math.exp(low),
        high=math.exp(high),
        p=p,
        claim=claim,
        launches_needed=launches_needed,
    )


@cache
def _most_spread(together: int) -> tuple[tuple[int, float], ...]:
    """Return pairs (block count, highest standard deviation of block differences) that give 90 % power for a 5 % change."""
    whole = math.log1p(TO_TELL)
    beyond = whole - math.log1p(launch_comparison.EQUIVALENCE_MARGIN)
    return tuple(
        (blocks, min(beyond / reach(blocks, CONFIDENCE), whole / reach(blocks, 1 - _LEVEL / together)))
        for blocks in range(MIN_BLOCKS, MAX_BLOCKS + 1)
    )
