"""Calibration: a float graph and its feeds -> the range of every float tensor in it."""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.quad.model.initializers import open_session
from quadbench.quad.quantize.encodings import Range

Feed = Mapping[str, np.ndarray]


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the names of graph inputs and node outputs of type float, in graph order; initializers are not among them."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    names = [v.name for v in model.graph.input] + [name for node in model.graph.node for name in node.output]
    return [name for name in names if values.get(name) == TensorProto.FLOAT]


def observe_ranges(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, Range]:
    """Run the graph on every feed and return each float tensor's least and greatest value over all of them."""
    names = float_tensors(model)
    session = open_session(with_ranges(model, names))
    low, high = np.full(len(names), np.inf, np.float32), np.full(len(names), -np.inf, np.float32)
    for feed in feeds:
        least, greatest = session.run(None, dict(feed))[0].reshape(-1, 2).T
        np.minimum(low, least, out=low)
        np.maximum(high, greatest, out=high)
    if not np.isfinite([low, high]).all():
        bad = [name for name, a, b in zip(names, low, high, strict=True) if not np.isfinite([a, b]).all()]
        raise ValueError(f"calibration saw no finite range at {bad[:5]}")
    return {name: Range(low=float(a), high=float(b)) for name, a, b in zip(names, low, high, strict=True)}


def with_ranges(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return the graph with one output instead of its own: the least and the greatest value of each tensor. No tensor leaves it.

    ONNX Runtime 1.32 orders nodes from the outputs back, and of several inputs first finishes the one whose node was added last.
    So the ranges are joined one after the other, by nodes that are added after all else: each tensor's range is taken, and the
    tensor freed, before the next is computed. Joined at once, all tensors of the graph would be alive together.
    """
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    graph = observed.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "ranges.shape"))
    for i, name in enumerate(names):
        for op in ("ReduceMin", "ReduceMax"):
            graph.node.append(helper.make_node(op, [name], [f"ranges.{op}.{i}.scalar"], keepdims=0))
            graph.node.append(helper.make_node("Reshape", [f"ranges.{op}.{i}.scalar", "ranges.shape"], [f"ranges.{op}.{i}"]))
    for i in range(len(names)):
        earlier = [f"ranges.{i - 1}"] if i else []
        parts = [*earlier, f"ranges.ReduceMin.{i}", f"ranges.ReduceMax.{i}"]
        graph.node.append(helper.make_node("Concat", parts, [f"ranges.{i}"], axis=0))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(f"ranges.{len(names) - 1}", TensorProto.FLOAT, [2 * len(names)]))
    return observed
