"""Multiple testing: verdicts that hold though a comparison is looked at several times and has many figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

import numpy as np

from quadbench.statistics import launch_comparison
from quadbench.statistics.intervals import MAX_BLOCKS, is_unlikely, sign_flip_p, t_p, t_quantile
from quadbench.statistics.launch_comparison import CONFIDENCE, LAUNCHES_PER_BLOCK, MIN_BLOCKS, Comparison, Verdict

# The two-sided level of each of K looks at which all of them together err with probability 0.05: Pocock 1977, table 1.
_LEVELS = {1: 0.05, 2: 0.0294, 3: 0.0221, 4: 0.0182, 5: 0.0158}
# A plan is made where the first blocks happen to differ little, so that their spread is too small. At the full level wrong
# verdicts were 7.9 % of planned comparisons at worst, at half of it about 5 %, as simulated (docs/measured/archive/verdicts.md).
_OF_PLANNED = 0.5
_POWER = 0.9  # with which a planned number of blocks tells the effect that it is planned for

TO_TELL = 0.05  # the difference for which is said how many launches would tell it
MARGIN_OF_FEW = 0.05  # below MIN_BLOCKS: neighbouring launches share more of the machine's luck than their spread shows
_LEVEL = 1 - CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The numbers of blocks, rising, after which a comparison is judged; it ends at the first verdict, or after the last.

    Two sides that differ by less than `margin` are the same; what differs by twice as much shall be told. `is_planned`: they
    follow from the spread of the first blocks, which are judged too.
    """

    at: tuple[int, ...]
    margin: float = launch_comparison.EQUIVALENCE_MARGIN
    is_planned: bool = False

    @property
    def confidence(self) -> float:
        """Return that of the interval at each look, so that a wrong verdict at any of them stays below 5 % in all."""
        level = _LEVELS[len(self.at)]
        return 1 - (level * _OF_PLANNED if self.is_planned else level)


LOOKS = Looks(at=(MIN_BLOCKS, 10, 16))


def planned_looks(differences: Sequence[float], to_see: float) -> Looks | None:
    """Return looks, the last of them late enough to tell an effect of `to_see`, from the spread of blocks that were seen.

    The margin is half of the effect. The last look is the first number of blocks at which the interval and what the mean itself
    strays, at 90 %, fit into that half; None where no affordable number would.
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
    """Return how far beyond a margin an effect is told with 90 % power, in standard deviations of a block."""
    return (t_quantile((1 + confidence) / 2, blocks - 1) + t_quantile(_POWER, blocks - 1)) / math.sqrt(blocks)


@dataclass(frozen=True, kw_only=True)
class JointVerdict:
    """A figure of side B against A, judged together with others. `ratio` is B / A with its own interval at 95 %.

    `p` is that of equal sides, adjusted for all figures that were judged together. `claim` is what may be said of the figure;
    `verdict` is the same from MIN_BLOCKS blocks on, and before INCONCLUSIVE. `launches_needed` is set where nothing may be said:
    about how many launches of each side would tell a difference of TO_TELL; None where no affordable number would.
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
        """Return the verdict, for which few blocks do not suffice."""
        return self.claim if self.blocks >= MIN_BLOCKS else Verdict.INCONCLUSIVE


def judge_together(
    figures: Sequence[tuple[Sequence[float], Sequence[float]]], *, margin: float = launch_comparison.EQUIVALENCE_MARGIN
) -> list[JointVerdict]:
    """Judge figures, each by one value per launch of sides A and B: two of either side a whole block, in the order measured.

    WORSE and BETTER need the whole interval beyond the margin, and the p of a t-test of at most 0.05 after Holm's correction for
    all figures. From MIN_BLOCKS blocks on both are those of the blocks' differences, an exact sign-flip test has to agree, and an
    interval within the margin is SAME. Before, both are those of two samples with a pooled spread, which a linear drift widens,
    the margin is MARGIN_OF_FEW at least, and nothing is SAME.
    """
    alone = [_alone(a, b) for a, b in figures]
    return [_judged(one, p, margin, len(figures)) for one, p in zip(alone, holm([one.p for one in alone]), strict=True)]


def hold_together(compared: Sequence[Comparison], confidence: float) -> list[Comparison]:
    """Return comparisons that were looked at together: WORSE and BETTER only where that holds for all of them at once.

    The p of each t-test, by its interval at a `confidence`, is corrected by Holm's method for the number of comparisons.
    """
    adjusted = holm([_p_of(one, confidence) for one in compared])
    told = [one.verdict is Verdict.SAME or p <= 1 - confidence for one, p in zip(compared, adjusted, strict=True)]
    return [one if is_told else replace(one, verdict=Verdict.INCONCLUSIVE) for one, is_told in zip(compared, told, strict=True)]


def _p_of(one: Comparison, confidence: float) -> float:
    if one.ratio is None or one.high is None:
        return 1.0
    error = math.log(one.high / one.ratio) / t_quantile((1 + confidence) / 2, one.blocks - 1)
    return t_p(math.log(one.ratio), error, one.blocks - 1)


def holm(p: Sequence[float]) -> list[float]:
    """Return each p adjusted for all of them: those of at most 0.05 err with a probability of at most 0.05 in all (Holm 1979)."""
    adjusted, highest = [1.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


@dataclass(frozen=True, kw_only=True)
class _Alone:
    """A figure by itself: the blocks' differences of logarithms, their mean's interval, its p, and how far one block differs."""

    differences: list[float]
    mean: float
    half: float
    p: float
    std: float


def _alone(a: Sequence[float], b: Sequence[float]) -> _Alone:
    blocks = len(a) // LAUNCHES_PER_BLOCK
    if len(a) != len(b) or blocks == 0 or len(a) % LAUNCHES_PER_BLOCK:
        raise ValueError(f"side A has {len(a)} launches and side B {len(b)}; expected whole blocks A B B A")
    if not all(0 < value < math.inf for value in (*a, *b)):
        raise ValueError("a launch's figure is not positive and finite; expected times or bytes above 0, whose ratio is compared")
    first, second = [math.log(value) for value in a], [math.log(value) for value in b]
    pairs = [one - other for one, other in zip(second, first, strict=True)]
    differences = [(one + other) / LAUNCHES_PER_BLOCK for one, other in zip(pairs[::2], pairs[1::2], strict=True)]
    # The mean of two launches, less that of two others, varies as one launch does.
    samples = [differences] if blocks >= MIN_BLOCKS else [first, second]
    degrees = sum(len(sample) - 1 for sample in samples)
    mean, std = fmean(differences), math.sqrt(sum(map(_squares, samples)) / degrees)
    error = std / math.sqrt(blocks)
    half = t_quantile((1 + CONFIDENCE) / 2, degrees) * error
    return _Alone(differences=differences, mean=mean, half=half, p=t_p(mean, error, degrees), std=std)


def _squares(sample: Sequence[float]) -> float:
    middle = fmean(sample)
    return math.fsum((value - middle) ** 2 for value in sample)


def _judged(alone: _Alone, p: float, margin: float, together: int) -> JointVerdict:
    low, high, blocks = alone.mean - alone.half, alone.mean + alone.half, len(alone.differences)
    claim = launch_comparison.verdict_between(low, high, margin if blocks >= MIN_BLOCKS else max(margin, MARGIN_OF_FEW))
    if claim is Verdict.SAME:
        is_sure = blocks >= MIN_BLOCKS
    else:
        is_sure = p <= _LEVEL and (not MIN_BLOCKS <= blocks <= MAX_BLOCKS or is_unlikely(sign_flip_p(alone.differences)))
    claim = claim if is_sure else Verdict.INCONCLUSIVE
    launches_needed = None
    if claim is Verdict.INCONCLUSIVE:  # the fewest that tell TO_TELL if blocks go on to differ so much
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
    """Return for each number of blocks the deviation of a block up to which TO_TELL is told with 90 % among so many figures."""
    whole = math.log1p(TO_TELL)
    beyond = whole - math.log1p(launch_comparison.EQUIVALENCE_MARGIN)
    return tuple(
        (blocks, min(beyond / reach(blocks, CONFIDENCE), whole / reach(blocks, 1 - _LEVEL / together)))
        for blocks in range(MIN_BLOCKS, MAX_BLOCKS + 1)
    )
