"""Share: how often something happened among so many tries -> the interval of its probability."""

import math
from statistics import NormalDist

from quadbench.statistics.comparison import CONFIDENCE


def interval_of_share(count: float, tries: int) -> tuple[float, float]:
    """Return Wilson's interval at 95 % of a probability (Wilson 1927): it holds for few tries and for shares near 0 and 1.

    A try may count in part, as one of several things that happened; the interval is then no narrower than it need be.

    Raises:
        ValueError: there are no tries, or more counts than tries.
    """
    if tries < 1 or not 0 <= count <= tries:
        raise ValueError(f"{count} of {tries} tries; expected at least one, and no more counts than tries")
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), count / tries
    middle = (share + z * z / (2 * tries)) / (1 + z * z / tries)
    half = z / (1 + z * z / tries) * math.sqrt(share * (1 - share) / tries + (z / (2 * tries)) ** 2)
    return (middle - half if count else 0.0), (middle + half if count < tries else 1.0)
