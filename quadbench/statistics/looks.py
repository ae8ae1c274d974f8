"""Looks: how often a comparison under way is looked at -> the blocks at which it may end, and the interval that pays for them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quadbench.statistics.comparison import EQUIVALENCE_MARGIN, MIN_BLOCKS
from quadbench.statistics.sign_flip import MAX_BLOCKS
from quadbench.statistics.student import t_quantile

# The two-sided level of each of K looks at which all of them together err with probability 0.05: Pocock 1977, table 1.
_LEVELS = {1: 0.05, 2: 0.0294, 3: 0.0221, 4: 0.0182, 5: 0.0158}
# A plan is made where the first blocks happen to differ little, so that their spread is too small. At the full level wrong
# verdicts were 7.9 % of planned comparisons at worst, at half of it about 5 %, as simulated (docs/measured/verdicts.md).
_OF_PLANNED = 0.5
_POWER = 0.9  # with which a planned number of blocks tells the effect that it is planned for


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The numbers of blocks, rising, after which a comparison is judged; it ends at the first verdict, or after the last.

    Two sides that differ by less than `margin` are the same; what differs by twice as much shall be told. `is_planned`: they
    follow from the spread of the first blocks, which are judged too.
    """

    at: tuple[int, ...]
    margin: float = EQUIVALENCE_MARGIN
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

    Raises:
        ValueError: fewer than two blocks were seen, or one is not finite, or the effect is none.
    """
    if len(differences) < 2 or not 0 < to_see < math.inf:
        raise ValueError(f"a plan for {to_see} from {len(differences)} blocks; expected an effect above 0 and two blocks or more")
    std, margin = float(np.std(differences, ddof=1)), to_see / 2
    room = math.log1p(to_see) - math.log1p(margin)
    for last in range(MIN_BLOCKS, MAX_BLOCKS + 1):
        looks = Looks(at=_spread_over(last), margin=margin, is_planned=True)
        if std * reach(last, looks.confidence) <= room:
            return looks
    return None


def reach(blocks: int, confidence: float) -> float:
    """Return how far beyond a margin an effect is told with 90 % power, in standard deviations of a block."""
    return (t_quantile((1 + confidence) / 2, blocks - 1) + t_quantile(_POWER, blocks - 1)) / math.sqrt(blocks)


def _spread_over(last: int) -> tuple[int, ...]:
    """Return looks like LOOKS that end at `last`."""
    return tuple(dict.fromkeys(max(MIN_BLOCKS, math.ceil(last * look / LOOKS.at[-1])) for look in LOOKS.at))
