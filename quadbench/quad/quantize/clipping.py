"""Clipping: a float graph, the encodings of its activations and feeds -> the share of values that lie outside their ranges."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.artifacts.held_out import ClippedTensor, Clipping
from quadbench.quad.model.initializers import open_session
from quadbench.quad.quantize.calibration import Feed, observe_ranges
from quadbench.quad.quantize.encodings import Encoding, Range, limits
from quadbench.quad.quantize.passes import value_shapes
from quadbench.quad.quantize.qdq import encoding_sources

NAMED = 10  # tensors


def clipping_of(
    model: onnx.ModelProto, encodings: Mapping[str, Encoding], feeds: Sequence[Feed], *, variant: str, task: str | None
) -> Clipping:
    """Run the float graph on the feeds and count the values that clip. Tensors that only move others' values do not count.

    Values are counted, in a second pass, of those tensors alone whose ends lie outside.
    """
    sources = encoding_sources(model, encodings)
    ranges = {name: range_within(encodings[name]) for name, source in sources.items() if name == source}
    seen = observe_ranges(model, feeds)
    outside = {name: r for name, r in ranges.items() if seen[name].low < r.low or seen[name].high > r.high}
    counts = _count_outside(model, outside, feeds) if outside else {}
    sizes = {name: prod(shape) * len(feeds) for name, shape in value_shapes(model).items() if name in ranges}
    tensors = [
        ClippedTensor(tensor=name, share=counts[name] / sizes[name], beyond=_beyond(seen[name], outside[name]))
        for name in outside
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
    """Return the range of the values that do not clip: those that round to an integer which the encoding has."""
    least, greatest = limits(encoding.dtype)
    low, high = (least - encoding.zero_point - 0.5) * encoding.scale, (greatest - encoding.zero_point + 0.5) * encoding.scale
    return Range(low=low, high=high)


def _beyond(seen: Range, within: Range) -> float:
    """Return how far the farthest value lies outside, in widths of the range."""
    return max(within.low - seen.low, seen.high - within.high) / (within.high - within.low)


def _count_outside(model: onnx.ModelProto, ranges: Mapping[str, Range], feeds: Sequence[Feed]) -> dict[str, int]:
    """Return how many values of each tensor lie outside its range, over all feeds."""
    session = open_session(_with_counts(model, ranges))
    counts = sum(session.run(None, dict(feed))[0].astype(np.int64) for feed in feeds)
    return {name: int(count) for name, count in zip(ranges, counts, strict=True)}


def _with_counts(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return the graph with one output instead of its own: for each tensor the number of its values outside its range."""
    counted = onnx.ModelProto()
    counted.CopyFrom(model)
    graph = counted.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "clips.shape"))
    for i, (name, within) in enumerate(ranges.items()):
        own = f"clips.{i}"
        ends = {f"{own}.low": within.low, f"{own}.high": within.high}
        graph.initializer.extend(numpy_helper.from_array(np.float32(value), key) for key, value in ends.items())
        graph.node.extend(
            (
                helper.make_node("Less", [name, f"{own}.low"], [f"{own}.below"]),
                helper.make_node("Greater", [name, f"{own}.high"], [f"{own}.above"]),
                helper.make_node("Or", [f"{own}.below", f"{own}.above"], [f"{own}.outside"]),
                helper.make_node("Cast", [f"{own}.outside"], [f"{own}.ones"], to=TensorProto.INT32),
                helper.make_node("ReduceSum", [f"{own}.ones"], [f"{own}.sum"], keepdims=0),
                helper.make_node("Reshape", [f"{own}.sum", "clips.shape"], [own]),
            )
        )
    graph.node.append(helper.make_node("Concat", [f"clips.{i}" for i in range(len(ranges))], ["clips"], axis=0))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("clips", TensorProto.INT32, [len(ranges)]))
    return counted
