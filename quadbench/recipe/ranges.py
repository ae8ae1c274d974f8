"""Ranges: a recipe's `quad.calibration.ranges` -> how the ranges of activations follow from what calibration saw."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from quadbench.spec import Spec


class _Ranges(Spec):
    """The setting that all ways to estimate ranges share."""

    headroom: float = Field(default=1.0, ge=1.0, le=16.0)
    """Both ends of every activation range are multiplied by this factor, 1 to 16; above 1 there is room for inputs that
    calibration has not seen and less resolution. The default is 1."""


class MinMaxRanges(_Ranges):
    """Ranges from the least to the greatest value seen."""

    estimator: Literal["min-max"]
    """Takes the least and the greatest value of each tensor."""


class PercentileRanges(_Ranges):
    """Ranges that leave out a small share of the values seen."""

    estimator: Literal["percentile"]
    """Takes the range that holds most values of each tensor."""
    percent: float = Field(default=99.99, ge=90.0, le=100.0)
    """This share of the values lies within the range, 90 to 100 percent; half of the others lies at either end.
    The default is 99.99."""


class MseRanges(_Ranges):
    """Ranges under which the values seen are rounded and clipped with the least squared error."""

    estimator: Literal["mse"]
    """Takes the range with the least squared error of each tensor."""


ActivationRanges: TypeAlias = Annotated[MinMaxRanges | PercentileRanges | MseRanges, Field(discriminator="estimator")]


class RangesByBits(Spec):
    """The ways in which activation ranges are taken, since what serves 65536 steps does not serve 256."""

    int16: ActivationRanges = MinMaxRanges(estimator="min-max", headroom=2.0)
    """Activations of 16 bits have ranges by this estimator. The default is min-max with headroom 2."""
    int8: ActivationRanges = PercentileRanges(estimator="percentile", percent=99.99, headroom=1.1)
    """Activations of 8 bits have ranges by this estimator. The default is percentile with percent 99.99 and headroom 1.1."""
