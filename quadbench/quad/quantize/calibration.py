"""Calibration: value ranges and histograms of a float graph's tensors, quantization ranges, and counts of clipped values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.artifacts.bundle import ClippedTensor, Clipping
from quadbench.quad.model.initializers import open_session
from quadbench.quad.quantize.encodings import Encoding, Range, limits
from quadbench.quad.quantize.passes import inferred_values, value_shapes
from quadbench.quad.quantize.qdq import encoding_sources

Feed = Mapping[str, np.ndarray]
Constants = dict[str, np.ndarray | np.generic]
BINS = 2048  # the number in AIMET and ONNX Runtime; at 8 bits a bin is an eighth of a step
Estimator = Callable[[Range, np.ndarray, str], Range]  # the observed range, its counts (bins,) and a dtype -> a range
_EARLIER = "counts.earlier"  # the graph input that counts are added to
# Returns an array that the function makes, or what it made of an equal second argument before. The first argument names its kind.
Remember = Callable[[str, object, Callable[[], np.ndarray]], np.ndarray]
ENDS = 50  # number of positions tried for each end of a range, between the observed end and zero
NAMED = 10  # number of worst tensors to list


def anew(_kind: str, _depends_on: object, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Make the array: a `Remember` without memory."""
    return make()


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the names of a graph's float32 inputs, then of its float32 node outputs, in graph order. Omit initializers."""
    values = {v.name: v.type.tensor_type.elem_type for v in inferred_values(model)}
    names = [v.name for v in model.graph.input] + [name for node in model.graph.node for name in node.output]
    return [name for name in names if values.get(name) == TensorProto.FLOAT]


def observe_ranges(model: onnx.ModelProto, *groups: Iterable[Feed], remember: Remember = anew) -> dict[str, Range]:
    """Run the graph on every feed of each group. Return a dict from float tensor name to Range, the least and greatest value over
    all feeds. A tensor whose values were only moved has the range of the tensor from which they come. `remember` may have the
    values of a group, (2, N) for N tensors, from an earlier build.
    """
    sources = encoding_sources(model, float_tensors(model))
    names = [name for name, source in sources.items() if name == source]
    session = cache(lambda: open_session(with_ranges(model, names)))

    def observe(feeds: Iterable[Feed]) -> np.ndarray:
        low, high = np.full(len(names), np.inf, np.float32), np.full(len(names), -np.inf, np.float32)
        for feed in feeds:
            least, greatest = session().run(None, dict(feed))[0].reshape(-1, 2).T
            np.minimum(low, least, out=low)
            np.maximum(high, greatest, out=high)
        if not np.isfinite([low, high]).all():
            bad = [name for name, a, b in zip(names, low, high, strict=True) if not np.isfinite([a, b]).all()]
            raise ValueError(f"calibration found no finite range for {bad[:5]}")
        return np.stack([low, high])

    seen = np.stack([remember("ranges", feeds, partial(observe, feeds)) for feeds in groups])
    lows, highs = seen[:, 0].min(0), seen[:, 1].max(0)
    ranges = {name: Range(low=float(a), high=float(b)) for name, a, b in zip(names, lows, highs, strict=True)}
    return {name: ranges[source] for name, source in sources.items()}


def with_ranges(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return a copy of the graph with one output, float32 (2 N,): a pair (least, greatest) for each of N tensors.

    ONNX Runtime 1.32 orders nodes backwards from the outputs, and finishes first the input whose node was added last. So the
    ranges are concatenated one by one, by nodes added at the end: each tensor is reduced and freed before the next is computed.
    Concatenated at once, all tensors of the graph would be in memory together.
    """
    nodes = []
    for i, name in enumerate(names):
        nodes.append(helper.make_node("Reshape", [name, "ranges.shape"], [f"ranges.{i}.flat"]))
        for op in ("ReduceMin", "ReduceMax"):
            nodes.append(helper.make_node(op, [f"ranges.{i}.flat"], [f"ranges.{op}.{i}"]))
    for i in range(len(names)):
        earlier = [f"ranges.{i - 1}"] if i else []
        parts = [*earlier, f"ranges.ReduceMin.{i}", f"ranges.ReduceMax.{i}"]
        nodes.append(helper.make_node("Concat", parts, [f"ranges.{i}"], axis=0))
    output = helper.make_tensor_value_info(f"ranges.{len(names) - 1}", TensorProto.FLOAT, [2 * len(names)])
    return _observed(model, nodes, {"ranges.shape": np.array([-1], np.int64)}, output)


def _observed(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], constants: Constants, output: onnx.ValueInfoProto
) -> onnx.ModelProto:
    """Return a copy of `model` with `nodes` and `constants` added. The copy's only graph output is `output`."""
    observed = deepcopy(model)
    graph = observed.graph
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(output)
    return observed


def observe_histograms(
    model: onnx.ModelProto, ranges: Mapping[str, Range], *groups: Iterable[Feed], remember: Remember = anew
) -> dict[str, np.ndarray]:
    """Run the graph on every feed of each group. Return a dict from tensor name to histogram, int64 (BINS,), summed over feeds.
    Bins divide the tensor's range in `ranges`; values outside count in the outermost bins. Memory use does not depend on the
    number of feeds. `remember` may have the histograms of a group, (N * BINS,), from an earlier build.
    """
    session = cache(lambda: open_session(with_histograms(model, ranges)))
    nothing = np.zeros(len(ranges) * BINS, np.int32)

    def count(feeds: Iterable[Feed]) -> np.ndarray:
        counts = np.zeros(len(nothing), np.int64)
        for feed in feeds:
            counts += session().run(None, {**feed, _EARLIER: nothing})[0]
        return counts

    counts = sum(remember("histograms", (ranges, feeds), partial(count, feeds)) for feeds in groups)
    return dict(zip(ranges, np.asarray(counts).reshape(-1, BINS), strict=True))


def with_histograms(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return a copy of the graph whose only output, INT32 (N * BINS,), concatenates the histograms of the N tensors in `ranges`.

    Each tensor is added to the counts of earlier ones by a node at the end, as in `with_ranges`: each tensor is counted and freed
    before the next is computed. ONNX Runtime 1.32 adds in place.
    """
    total = len(ranges) * BINS
    constants: Constants = {"flat": np.array([-1], np.int64), "first": np.float32(0), "last": np.float32(BINS - 0.5)}
    for i, values in enumerate(ranges.values()):
        constants |= {f"{i}.low": np.float32(values.low), f"{i}.offset": np.int32(i * BINS)}
        constants[f"{i}.per_unit"] = np.float32(BINS / (values.high - values.low) if values.high > values.low else 0)
    nodes = [node for i, name in enumerate(ranges) for node in _places(name, i)]
    earlier = _EARLIER
    for i in range(len(ranges)):
        inputs = [earlier, f"counts.{i}.places", f"counts.{i}.ones"]
        earlier = f"counts.{i}"
        nodes.append(helper.make_node("ScatterElements", inputs, [earlier], axis=0, reduction="add"))
    output = helper.make_tensor_value_info(earlier, TensorProto.INT32, [total])
    observed = _observed(model, nodes, {f"counts.{name}": value for name, value in constants.items()}, output)
    observed.graph.input.append(helper.make_tensor_value_info(_EARLIER, TensorProto.INT32, [total]))
    return observed


def _places(name: str, index: int) -> list[onnx.NodeProto]:
    """Return ONNX nodes that compute, for tensor `name`, each value's index in concatenated histograms, and ones as counts."""
    own = f"counts.{index}"
    one = numpy_helper.from_array(np.array([1], np.int32))
    return [
        helper.make_node("Reshape", [name, "counts.flat"], [f"{own}.values"]),
        helper.make_node("Shape", [f"{own}.values"], [f"{own}.size"]),
        helper.make_node("ConstantOfShape", [f"{own}.size"], [f"{own}.ones"], value=one),
        helper.make_node("Sub", [f"{own}.values", f"{own}.low"], [f"{own}.above"]),
        helper.make_node("Mul", [f"{own}.above", f"{own}.per_unit"], [f"{own}.scaled"]),
        helper.make_node("Clip", [f"{own}.scaled", "counts.first", "counts.last"], [f"{own}.clipped"]),
        helper.make_node("Cast", [f"{own}.clipped"], [f"{own}.bins"], to=TensorProto.INT32),
        helper.make_node("Add", [f"{own}.bins", f"{own}.offset"], [f"{own}.places"]),
    ]


@dataclass(frozen=True, kw_only=True)
class RangeRule:
    """The rule for a tensor's quantization range: an estimator, and a headroom factor that multiplies both ends of the range.
    Without an estimator, the range is from the least to the greatest value, and needs no histogram.
    """

    estimator: Estimator | None = None
    headroom: float = 1.0

    def range_of(self, seen: Range, counts: np.ndarray | None, dtype: str) -> Range:
        """Return the range to quantize: the observed range `seen` or an estimate from histogram `counts`, times `headroom`."""
        if self.estimator is None:
            return seen.scaled(self.headroom)
        assert counts is not None
        return self.estimator(seen, counts, dtype).scaled(self.headroom)


PLAIN_RULES = {"uint16": RangeRule(), "uint8": RangeRule()}


def percentile(seen: Range, counts: np.ndarray, _dtype: str, *, percent: float) -> Range:
    """Return a tensor's quantization range. It holds `percent` % of the values in histogram `counts`, cut equally at both ends.

    Bins are cut off at either end while they hold no more than half of the values to leave out.
    """
    outside = counts.sum() * (1 - percent / 100) / 2
    edges = _edges(seen, len(counts))
    first = int(np.searchsorted(np.cumsum(counts), outside, side="right"))
    last = int(np.searchsorted(np.cumsum(counts[::-1]), outside, side="right"))
    return Range(low=float(edges[first]), high=float(edges[len(counts) - last]))


def least_error(seen: Range, counts: np.ndarray, dtype: str) -> Range:
    """Return the quantization range that gives values in histogram `counts` the least squared error when quantized to `dtype`.

    ENDS positions are tried for each end. Every value costs a twelfth of the squared step, a value outside also its squared
    distance to the range.
    """
    edges = _edges(seen, len(counts))
    middles = (edges[:-1] + edges[1:]) / 2
    shares = np.linspace(1, 0, ENDS, endpoint=False)
    lows, highs = min(seen.low, 0.0) * shares, max(seen.high, 0.0) * shares
    below = np.square(np.maximum(lows[:, None] - middles, 0)) @ counts  # (ENDS, bins) @ (bins,) -> (ENDS,)
    above = np.square(np.maximum(middles - highs[:, None], 0)) @ counts
    least, greatest = limits(dtype)
    steps = (highs - lows[:, None]) / (greatest - least)  # (ENDS, ENDS)
    error = below[:, None] + above + counts.sum() * np.square(steps) / 12
    low, high = np.unravel_index(int(error.argmin()), error.shape)
    return Range(low=float(lows[low]), high=float(highs[high]))


def _edges(seen: Range, bins: int) -> np.ndarray:
    return np.linspace(seen.low, seen.high, bins + 1)


def clipping_of(
    model: onnx.ModelProto, encodings: Mapping[str, Encoding], feeds: Sequence[Feed], *, variant: str, task: str | None
) -> Clipping:
    """Run a float graph on the feeds. Return a Clipping: how many values lie outside the ranges of quantization encodings. A
    first run finds tensors with such values, and a second run counts the values. Outputs of nodes like Reshape are not counted.
    """
    sources = encoding_sources(model, encodings)
    ranges = {name: range_within(encodings[name]) for name, source in sources.items() if name == source}
    seen = observe_ranges(model, feeds)
    outside = {name: r for name, r in ranges.items() if seen[name].low < r.low or seen[name].high > r.high}
    counts = {}
    if outside:
        session = open_session(_with_counts(model, outside))
        counted = sum(session.run(None, dict(feed))[0].astype(np.int64) for feed in feeds)
        counts = {name: int(count) for name, count in zip(outside, counted, strict=True)}
    sizes = {name: prod(shape) * len(feeds) for name, shape in value_shapes(model).items() if name in ranges}
    tensors = [
        # `beyond` is the distance of the farthest value, in widths of the range.
        ClippedTensor(
            tensor=name,
            share=counts[name] / sizes[name],
            beyond=max(within.low - seen[name].low, seen[name].high - within.high) / (within.high - within.low),
        )
        for name, within in outside.items()
    ]
    return Clipping(
        variant=variant,
        task=task,
        runs=len(feeds),
        tensors=len(ranges),
        clipped=len(tensors),
        share=sum(counts.values()) / sum(sizes.values()),
        worst=tuple(sorted(tensors, key=lambda tensor: tensor.share, reverse=True)[:NAMED]),
    )


def range_within(encoding: Encoding) -> Range:
    """Return the range of float values that an encoding does not clip: up to half a step beyond the outermost integers."""
    least, greatest = limits(encoding.dtype)
    low, high = (least - encoding.zero_point - 0.5) * encoding.scale, (greatest - encoding.zero_point + 0.5) * encoding.scale
    return Range(low=low, high=high)


def _with_counts(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return a copy of the graph whose only output, INT32 (N,), counts the values outside the range of each of N tensors."""
    nodes: list[onnx.NodeProto] = []
    constants: Constants = {"clips.shape": np.array([1], np.int64)}
    for i, (name, within) in enumerate(ranges.items()):
        own = f"clips.{i}"
        constants |= {f"{own}.low": np.float32(within.low), f"{own}.high": np.float32(within.high)}
        nodes += [
            helper.make_node("Less", [name, f"{own}.low"], [f"{own}.below"]),
            helper.make_node("Greater", [name, f"{own}.high"], [f"{own}.above"]),
            helper.make_node("Or", [f"{own}.below", f"{own}.above"], [f"{own}.outside"]),
            helper.make_node("Cast", [f"{own}.outside"], [f"{own}.ones"], to=TensorProto.INT32),
            helper.make_node("ReduceSum", [f"{own}.ones"], [f"{own}.sum"], keepdims=0),
            helper.make_node("Reshape", [f"{own}.sum", "clips.shape"], [own]),
        ]
    nodes.append(helper.make_node("Concat", [f"clips.{i}" for i in range(len(ranges))], ["clips"], axis=0))
    return _observed(model, nodes, constants, helper.make_tensor_value_info("clips", TensorProto.INT32, [len(ranges)]))
