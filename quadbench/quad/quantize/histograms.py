"""Histograms: a float graph, the range of each of its tensors and feeds -> how often values fall on each part of that range."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.quad.model.initializers import open_session
from quadbench.quad.quantize.calibration import Feed
from quadbench.quad.quantize.encodings import Range

BINS = 2048  # as AIMET and ONNX Runtime take; at 8 bits a bin is an eighth of a step
_EARLIER = "counts.earlier"  # the graph input that counts are added to


def observe_histograms(model: onnx.ModelProto, ranges: Mapping[str, Range], feeds: Iterable[Feed]) -> dict[str, np.ndarray]:
    """Run the graph on every feed and count each tensor's values in BINS equal parts of its range: int64, (BINS,).

    Values outside the range count in the outermost parts. What is held beside the graph is the counts, whatever the feeds.
    """
    session = open_session(with_histograms(model, ranges))
    counts, nothing = np.zeros(len(ranges) * BINS, np.int64), np.zeros(len(ranges) * BINS, np.int32)
    for feed in feeds:
        counts += session.run(None, {**feed, _EARLIER: nothing})[0]
    return dict(zip(ranges, counts.reshape(-1, BINS), strict=True))


def with_histograms(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Return the graph with one output instead of its own: the counts of all tensors, one tensor after the other.

    Each tensor is added to the counts of those before it by a node that is added after all else, for the reason that
    `calibration.with_ranges` names: each tensor is counted, and freed, before the next is computed. ONNX Runtime 1.32 adds in
    place.
    """
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    graph, total = observed.graph, [len(ranges) * BINS]
    constants = {"flat": np.array([-1], np.int64), "first": np.float32(0), "last": np.float32(BINS - 0.5)}
    for i, values in enumerate(ranges.values()):
        constants |= {f"{i}.low": np.float32(values.low), f"{i}.offset": np.int32(i * BINS)}
        constants[f"{i}.per_unit"] = np.float32(BINS / (values.high - values.low) if values.high > values.low else 0)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), f"counts.{name}") for name, value in constants.items())
    for i, name in enumerate(ranges):
        graph.node.extend(_places(name, i))
    earlier = _EARLIER
    for i in range(len(ranges)):
        inputs = [earlier, f"counts.{i}.places", f"counts.{i}.ones"]
        earlier = f"counts.{i}"
        graph.node.append(helper.make_node("ScatterElements", inputs, [earlier], axis=0, reduction="add"))
    graph.input.append(helper.make_tensor_value_info(_EARLIER, TensorProto.INT32, total))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(earlier, TensorProto.INT32, total))
    return observed


def _places(name: str, index: int) -> list[onnx.NodeProto]:
    """Return the nodes that give the place of each of a tensor's values among all counts, and as many ones."""
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
