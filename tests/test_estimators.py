"""Activation ranges: what calibration counts of each tensor, and what the estimators make of it."""

from functools import partial

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402
from support.small_graphs import model_of, run  # noqa: E402

from quadbench.quad.quantize.calibration import (  # noqa: E402
    BINS,
    Estimator,
    RangeRule,
    least_error,
    observe_histograms,
    observe_ranges,
    percentile,
)
from quadbench.quad.quantize.encodings import Range, asymmetric, dequantize, quantize, range_of  # noqa: E402
from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq  # noqa: E402

RNG = np.random.default_rng(0)
SPREAD = RNG.standard_normal(100_000).astype(np.float32)
WITH_OUTLIER = np.append(SPREAD, np.float32(60))


def _range(values: np.ndarray, estimator: Estimator | None, dtype: str) -> Range:
    seen = range_of(values)
    return RangeRule(estimator=estimator).range_of(seen, np.histogram(values, BINS, (seen.low, seen.high))[0], dtype)


def _error(values: np.ndarray, taken: Range, dtype: str) -> float:
    encoding = asymmetric(taken, dtype)
    return float(np.square(dequantize(quantize(values, encoding), encoding) - values).mean())


def _doubling(width: int = 50) -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Softmax", ["twice"], ["y"], axis=-1)]
    return model_of(nodes, {"x": (4, width)}, {}, (4, width))


def test_every_value_of_every_tensor_is_counted_where_it_lies() -> None:
    model, feeds = _doubling(), [{"x": RNG.standard_normal((4, 50)).astype(np.float32)} for _ in range(3)]
    ranges = observe_ranges(model, feeds)
    counts = observe_histograms(model, ranges, feeds)
    assert {name: int(own.sum()) for name, own in counts.items()} == dict.fromkeys(["x", "twice", "y"], 3 * 4 * 50)
    expected, _ = np.histogram([feed["x"] for feed in feeds], BINS, (ranges["x"].low, ranges["x"].high))
    assert np.abs(np.cumsum(counts["x"]) - np.cumsum(expected)).max() <= 1  # a value at the edge of a bin may fall to either side


def test_a_tensor_that_never_changes_is_counted_too() -> None:
    model, feed = _doubling(), {"x": np.full((4, 50), 3, np.float32)}
    counts = observe_histograms(model, observe_ranges(model, [feed]), [feed])
    assert counts["x"].sum() == 4 * 50


def test_minimum_and_maximum_hold_all_that_was_seen() -> None:
    assert _range(WITH_OUTLIER, None, "uint8") == range_of(WITH_OUTLIER)


def test_a_percentile_leaves_out_as_much_as_it_says() -> None:
    taken = _range(WITH_OUTLIER, partial(percentile, percent=99.0), "uint16")
    outside = np.mean(np.clip(WITH_OUTLIER, taken.low, taken.high) != WITH_OUTLIER)
    assert 0.001 < outside <= 0.01
    assert _range(WITH_OUTLIER, partial(percentile, percent=100.0), "uint16") == range_of(WITH_OUTLIER)


def test_the_least_error_cuts_an_outlier_off_where_bits_are_few() -> None:
    seen, taken = range_of(WITH_OUTLIER), _range(WITH_OUTLIER, least_error, "uint8")
    assert taken.high < seen.high
    assert _error(WITH_OUTLIER, taken, "uint8") < _error(WITH_OUTLIER, seen, "uint8")


def test_the_least_error_keeps_the_whole_range_where_bits_are_many() -> None:
    assert _range(WITH_OUTLIER, least_error, "uint16") == range_of(WITH_OUTLIER)


@pytest.mark.parametrize("estimator", [partial(percentile, percent=99.0), least_error])
def test_a_range_that_is_estimated_keeps_zero_and_its_order(estimator: Estimator) -> None:
    for values in (SPREAD, np.abs(SPREAD), -np.abs(SPREAD), np.zeros(100, np.float32)):
        taken = _range(values, estimator, "uint8")
        assert taken.low <= taken.high
        assert asymmetric(taken, "uint8").scale > 0


def _calibrated(model: onnx.ModelProto, x: np.ndarray, estimator: Estimator | None, headroom: float = 1.0) -> CalibratedGraph:
    rule = RangeRule(estimator=estimator, headroom=headroom)
    return CalibratedGraph(ObservedGraph(model, [{"x": x}]), {"uint16": rule, "uint8": rule})


def test_headroom_keeps_values_that_calibration_has_not_seen_from_clipping() -> None:
    model, seen = _doubling(), RNG.standard_normal((4, 50)).astype(np.float32)
    new = {"x": seen * np.float32(1.3)}
    graphs = [write_qdq(_calibrated(model, seen, None, headroom)).model for headroom in (1.0, 1.5)]
    errors = [float(np.abs(run(graph, new) - run(model, new)).max()) for graph in graphs]
    assert errors[0] > 0.01
    assert errors[1] < 0.001


def test_headroom_widens_no_range_that_is_known() -> None:
    x = SPREAD[:200].reshape(4, 50)
    plain, wide = (_calibrated(_doubling(), x, None, headroom).encodings("uint16") for headroom in (1.0, 2.0))
    assert wide["twice"].scale == pytest.approx(2 * plain["twice"].scale)
    assert wide["y"] == plain["y"] == asymmetric(Range(low=0.0, high=1.0), "uint16")


def test_an_estimator_takes_the_bits_that_a_tensor_has() -> None:
    calibrated = _calibrated(_doubling(5_000), np.append(SPREAD[:19_999], np.float32(60)).reshape(4, 5_000), least_error)
    assert calibrated.ranges("uint8")["x"].high < calibrated.ranges("uint16")["x"].high == pytest.approx(60.0)


def test_values_are_counted_only_for_a_rule_that_asks_for_it() -> None:
    observed = ObservedGraph(_doubling(), [{"x": SPREAD[:200].reshape(4, 50)}])
    rules = {"uint16": RangeRule(), "uint8": RangeRule(estimator=least_error)}
    write_qdq(CalibratedGraph(observed, rules))
    assert "counts" not in vars(observed)
    write_qdq(CalibratedGraph(observed, rules), int8_percent=100)
    assert "counts" in vars(observed)
