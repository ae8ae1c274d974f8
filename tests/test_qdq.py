"""Encodings, calibration and the QDQ writer on small graphs."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from support.small_graphs import attention_model, model_of, run, seeded_feed  # noqa: E402

from quadbench.quad.quantize.calibration import observe_ranges  # noqa: E402
from quadbench.quad.quantize.encodings import (  # noqa: E402
    Encoding,
    Range,
    asymmetric,
    dequantize,
    quantize,
    quantize_channels,
    symmetric,
    widen,
)
from quadbench.quad.quantize.qdq import activation_encodings, quantize_graph  # noqa: E402

RNG = np.random.default_rng(0)


def _lora_model() -> object:
    """Return a graph of y = Conv(x, w) + b + up(down(x)), then Reshape and Softmax."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["base"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "lora.s.down"], ["low"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["low", "lora.s.up"], ["high"]),
        helper.make_node("Add", ["base", "high"], ["sum"]),
        helper.make_node("Reshape", ["sum", "flat"], ["rows"]),
        helper.make_node("Softmax", ["rows"], ["y"], axis=-1),
    ]
    shapes = {"x": (1, 3, 4, 4), "lora.s.down": (2, 3, 3, 3), "lora.s.up": (5, 2, 1, 1)}
    weights = {
        "w": RNG.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "b": RNG.standard_normal(5).astype(np.float32),
        "flat": np.array([5, 16], np.int64),
    }
    return model_of(nodes, shapes, weights, (5, 16))


def test_zero_is_always_exact() -> None:
    for values in (Range(low=-1.0, high=3.0), Range(low=0.5, high=3.0), Range(low=-3.0, high=-0.5), Range(low=0.0, high=0.0)):
        encoding = asymmetric(values, "uint16")
        integer = quantize(np.zeros(1, np.float32), encoding)
        assert (int(integer[0]) - encoding.zero_point) * encoding.scale == 0


def test_halves_are_rounded_to_even_as_onnx_does() -> None:
    encoding = Encoding(dtype="int8", scale=1.0)
    np.testing.assert_array_equal(quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), encoding), [0, 2, 2, 0, -2])


def test_values_outside_the_range_are_clipped() -> None:
    np.testing.assert_array_equal(quantize(np.array([9.0, -9.0], np.float32), symmetric(1.0, "int16")), [32767, -32767])


def test_integers_are_those_of_quantize_linear() -> None:
    values = (RNG.standard_normal(1000) * 3).astype(np.float32)
    for encoding in (asymmetric(Range(low=-2.5, high=7.0), "uint16"), asymmetric(Range(low=-2.5, high=7.0), "uint8")):
        node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])
        weights = {"s": np.float32(encoding.scale), "z": np.array(encoding.zero_point, encoding.dtype)}
        model = model_of([node], {"x": (1000,)}, {k: np.asarray(v) for k, v in weights.items()}, (1000,))
        model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(encoding.dtype))
        np.testing.assert_array_equal(quantize(values, encoding), run(model, {"x": values}))


def test_weights_have_a_scale_for_each_output_channel() -> None:
    weights = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32) * np.array([1, 10, 100, 0], np.float32).reshape(-1, 1, 1, 1)
    integers, scales = quantize_channels(weights, axis=0)
    assert integers.dtype == np.int8
    np.testing.assert_allclose(integers * scales.reshape(-1, 1, 1, 1), weights, atol=float(scales.max()) / 2 * 1.001)
    assert np.abs(integers[:3]).max(axis=(1, 2, 3)).tolist() == [127, 127, 127]


def test_ranges_are_those_of_every_tensor_over_all_feeds() -> None:
    model = _lora_model()
    feeds = [seeded_feed(model) for _ in range(3)]
    ranges = observe_ranges(model, feeds)
    assert set(ranges) == {"x", "lora.s.down", "lora.s.up", "base", "low", "high", "sum", "rows", "y"}
    assert ranges["x"].high == max(feed["x"].max() for feed in feeds)
    assert ranges["y"].low == min(run(model, feed).min() for feed in feeds)


def test_a_node_that_only_moves_values_keeps_its_inputs_encoding() -> None:
    model = _lora_model()
    encodings = activation_encodings(model, observe_ranges(model, [seeded_feed(model)]), dtype="uint16")
    assert encodings["rows"] == encodings["sum"]
    assert encodings["y"] == asymmetric(Range(low=0.0, high=1.0), "uint16")


@pytest.mark.parametrize(("dtype", "lora", "least_db"), [("uint16", "int16", 35), ("uint8", "int8", 18)])
def test_the_quantized_graph_is_near_the_float_one(dtype: str, lora: str, least_db: float) -> None:
    model = _lora_model()
    feed = seeded_feed(model)
    ranges = observe_ranges(model, [feed])
    lora_encodings = {name: symmetric(ranges[name].magnitude, lora) for name in feed if name.startswith("lora.")}
    written = quantize_graph(model, activation_encodings(model, ranges, dtype=dtype), lora_encodings)
    integers = feed | {name: quantize(feed[name], encoding) for name, encoding in lora_encodings.items()}
    exact, approximate = run(model, feed), run(written, integers)
    assert 10 * np.log10(np.square(exact).sum() / np.square(approximate - exact).sum()) > least_db
    assert {i.name: i.type.tensor_type.elem_type for i in written.graph.input} == {
        "x": TensorProto.FLOAT,
        "lora.s.down": helper.np_dtype_to_tensor_dtype(np.dtype(lora)),
        "lora.s.up": helper.np_dtype_to_tensor_dtype(np.dtype(lora)),
    }


def test_lora_inputs_go_straight_into_a_dequantizer_with_zero_point_zero() -> None:
    model = _lora_model()
    feed = seeded_feed(model)
    ranges = observe_ranges(model, [feed])
    lora = {name: symmetric(1.0, "int16") for name in feed if name.startswith("lora.")}
    written = quantize_graph(model, activation_encodings(model, ranges, dtype="uint16"), lora)
    constants = {i.name: numpy_helper.to_array(i) for i in written.graph.initializer}
    for name in lora:
        readers = [node for node in written.graph.node if name in node.input]
        assert [node.op_type for node in readers] == ["DequantizeLinear"]
        assert constants[readers[0].input[2]] == 0


def test_a_product_of_activations_has_a_signed_second_factor() -> None:
    model = attention_model()
    feed = seeded_feed(model)
    written = quantize_graph(model, activation_encodings(model, observe_ranges(model, [feed]), dtype="uint16"))
    constants = {i.name: numpy_helper.to_array(i) for i in written.graph.initializer}
    producers = {output: node for node in written.graph.node for output in node.output}
    (product,) = (node for node in written.graph.node if node.name == "scores")
    zero_points = [constants[producers[name].input[2]] for name in product.input]
    assert [zero.dtype for zero in zero_points] == ["uint16", "int16"]
    assert zero_points[1] == 0
    exact = run(model, feed)
    assert 10 * np.log10(np.square(exact).sum() / np.square(run(written, feed) - exact).sum()) > 35


def test_a_weight_near_zero_beside_a_large_bias_still_fits_32_bits() -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=2)
    weights = {"w": np.array([1e-9, 1.0], np.float32).reshape(2, 1, 1, 1), "b": np.array([3.0, -2.0], np.float32)}
    model = model_of([node], {"x": (1, 2, 4, 4)}, weights, (1, 2, 4, 4))
    feed = seeded_feed(model)
    written = quantize_graph(model, activation_encodings(model, observe_ranges(model, [feed]), dtype="uint16"))
    np.testing.assert_allclose(run(written, feed), run(model, feed), atol=2e-3)


def _bits_at(model: object, operator: str) -> list[tuple[str, str]]:
    """Return for each node of a kind the dtypes of the data that it is given and of its result."""
    zero_points = {i.name: numpy_helper.to_array(i).dtype.name for i in model.graph.initializer}
    given = {n.output[0]: zero_points[n.input[2]] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    results = {n.input[0]: zero_points[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    return [(given[n.input[0]], results[n.output[0]]) for n in model.graph.node if n.op_type == operator]


@pytest.mark.parametrize("narrow", [{"x"}, {"base", "low", "high"}, {"low"}])
def test_an_operator_that_takes_one_width_is_given_what_it_gives(narrow: set[str]) -> None:
    model = _lora_model()
    feed = seeded_feed(model)
    ranges = observe_ranges(model, [feed])
    lora = {name: symmetric(ranges[name].magnitude, "int16") for name in feed if name.startswith("lora.")}
    wide, eight_bit = (activation_encodings(model, ranges, dtype=dtype, lora=lora) for dtype in ("uint16", "uint8"))
    encodings = {name: eight_bit[name] if name in narrow else wide[name] for name in wide}
    written = quantize_graph(model, encodings, lora)
    assert _bits_at(written, "Conv") == [("uint16", "uint16")] * 3


def test_16_bit_lora_weights_between_8_bit_tensors_are_multiplied_in_16_bits() -> None:
    model = _lora_model()
    feed = seeded_feed(model)
    ranges = observe_ranges(model, [feed])
    for dtype, expected in (("int16", "uint16"), ("int8", "uint8")):
        lora = {name: symmetric(ranges[name].magnitude, dtype) for name in feed if name.startswith("lora.")}
        written = quantize_graph(model, activation_encodings(model, ranges, dtype="uint8", lora=lora), lora)
        assert _bits_at(written, "Conv") == [("uint8", "uint8"), (expected, expected), (expected, expected)]


def test_widening_keeps_every_value() -> None:
    narrow = asymmetric(Range(low=-2.5, high=7.0), "uint8")
    integers = np.arange(256, dtype=np.uint8)
    values = dequantize(integers, narrow)
    np.testing.assert_array_equal(quantize(values, widen(narrow)), integers.astype(np.int32) * 257)
    np.testing.assert_allclose(dequantize(quantize(values, widen(narrow)), widen(narrow)), values, rtol=1e-6)
