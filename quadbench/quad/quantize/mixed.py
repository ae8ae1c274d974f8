"""Mixed precision: a float graph, its layers and feeds -> what 8 bits cost each layer, as measured, and which layers take them.

The noise of a layer is that of the graph's output when the layer's data and result, and nothing else, are rounded to 8 bits.
Nothing changes before them. So the graph is cut into segments: the nodes before one run once for each feed, and for each layer
only the rest.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.quad.divergence import ratio_db
from quadbench.quad.model.initializers import open_session
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.layers import Layer, narrow_layers

SEGMENTS = 12  # halves the time of a run; more of them cost as much in loading as they save
Values = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """The cost of one layer in 8 bits: the output's SQNR, None if nothing changes."""

    layer: Layer
    sqnr_db: float | None

    @property
    def per_parameter(self) -> float:
        """Return the noise beside the signal, divided by the layer's parameters."""
        return 0.0 if self.sqnr_db is None else 10 ** (-self.sqnr_db / 10) / self.layer.parameters


def layer_noise(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    encodings: Mapping[str, Encoding],
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> tuple[LayerNoise, ...]:
    """Round one layer's data and result at a time, over all feeds. The least noise for its parameters comes first.

    `encodings` is by source (`qdq.encoding_sources`): nodes that only move its values move rounded ones. The graph has one
    output.
    """
    signal, noise = 0.0, dict.fromkeys((layer.name for layer in layers), 0.0)
    known = [dict(feed) for feed in feeds]  # for each feed, the values that later nodes read
    for segment in _segments(model, layers, encodings):
        signal, noise_of_segment = segment.noise(known)
        noise |= noise_of_segment
        known = segment.run(known)
    rows = (LayerNoise(layer=layer, sqnr_db=ratio_db(signal, noise[layer.name])) for layer in layers)
    return tuple(sorted(rows, key=lambda row: row.per_parameter))


def least_noisy(noise: Sequence[LayerNoise], percent: int) -> set[str]:
    """Return the tensors of the first layers: of so many that the parameters in 8 bits come nearest to `percent` % of all.

    A layer both of whose tensors belong to layers before it has 8 bits, too, and counts.
    """
    layers = [row.layer for row in noise]
    tensors = [set[str]()]
    for layer in layers:
        tensors.append(tensors[-1] | {layer.data, layer.result})
    wanted = sum(layer.parameters for layer in layers) * percent / 100
    return min(tensors, key=lambda narrow: abs(sum(layer.parameters for layer in narrow_layers(layers, narrow)) - wanted))


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """Consecutive nodes of the graph, the layers that read or compute there first, and the nodes from the first to the output."""

    layers: tuple[Layer, ...]  # those whose data is an input of the graph are the first segment's
    nodes: onnx.ModelProto  # its outputs are what later nodes read
    rest: onnx.ModelProto  # has one more input for each tensor of the layers, which says whether it is rounded

    def run(self, known: Sequence[Values]) -> list[Values]:
        """Add this segment's outputs to the known values."""
        session = open_session(self.nodes)
        names = [output.name for output in self.nodes.graph.output]
        outputs = [session.run(names, _inputs(self.nodes, values)) for values in known]
        return [values | dict(zip(names, own, strict=True)) for values, own in zip(known, outputs, strict=True)]

    def noise(self, known: Sequence[Values]) -> tuple[float, dict[str, float]]:
        """Return the output's energy over all feeds, and for each layer that of the output's change when it alone is rounded."""
        session = open_session(self.rest, threads=1)
        switches = {value.name for value in self.rest.graph.input if value.name.endswith(_switch_of(""))}
        feeds = [_inputs(self.rest, values) for values in known]

        def outputs(rounded: Collection[str]) -> Iterator[np.ndarray]:
            on = {name: np.array(name in rounded) for name in switches}
            return (session.run(None, feed | on)[0] for feed in feeds)

        def energy_of(layer: Layer) -> float:
            rounded = {_switch_of(layer.data), _switch_of(layer.result)}
            return sum(_energy(output - right) for output, right in zip(outputs(rounded), exact, strict=True))

        exact = list(outputs(()))
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # runs side by side: small operators gain little from more threads
            noise = pool.map(energy_of, self.layers)
            return sum(map(_energy, exact)), {layer.name: own for layer, own in zip(self.layers, noise, strict=True)}


def _energy(values: np.ndarray) -> float:
    """Return the sum of squares, in float64."""
    return float(np.square(values, dtype=np.float64).sum())


def _inputs(model: onnx.ModelProto, values: Values) -> Values:
    """Return those of the values that the graph takes."""
    return {v.name: values[v.name] for v in model.graph.input if v.name in values}


def _segments(model: onnx.ModelProto, layers: Sequence[Layer], encodings: Mapping[str, Encoding]) -> Iterator[_Segment]:
    """Cut the graph into SEGMENTS parts of as many nodes each."""
    cutter = _Cutter(model)
    nodes, results = list(model.graph.node), [value.name for value in model.graph.output]
    place = {name: i for i, node in enumerate(nodes) for name in node.output}
    first_place = {layer.name: min(place.get(layer.data, 0), place.get(layer.result, 0)) for layer in layers}
    cuts = sorted({round(len(nodes) * i / SEGMENTS) for i in range(SEGMENTS + 1)})
    for first, last in pairwise(cuts):
        outputs = [name for node in nodes[first:last] for name in node.output]
        read_later = {*(name for node in nodes[last:] for name in node.input), *results}
        own = tuple(layer for layer in layers if first <= first_place[layer.name] < last)
        rounded = {name: encodings[name] for layer in own for name in (layer.data, layer.result)}
        yield _Segment(
            layers=own,
            nodes=cutter.part(nodes[first:last], [name for name in outputs if name in read_later]),
            rest=cutter.with_switches(nodes[first:], rounded, results),
        )


def _switch_of(tensor: str) -> str:
    """Return the name of the input that says whether a tensor is rounded."""
    return f"{tensor}.is_rounded"


def _rounding(tensor: str, exact: str, result: str, encoding: Encoding) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes that compute the result of the exact tensor, rounded where its switch is on, and their constants."""
    scale, zero_point = f"{tensor}.scale", f"{tensor}.zero_point"
    nodes = [
        helper.make_node("QuantizeLinear", [exact, scale, zero_point], [f"{tensor}.integers"]),
        helper.make_node("DequantizeLinear", [f"{tensor}.integers", scale, zero_point], [f"{tensor}.rounded"]),
        helper.make_node("Where", [_switch_of(tensor), f"{tensor}.rounded", exact], [result]),
    ]
    constants = {scale: np.float32(encoding.scale), zero_point: np.array(encoding.zero_point, encoding.dtype)}
    return nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


class _Cutter:
    """A model to cut smaller models from."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {constant.name: constant for constant in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self._values = {v.name: v for v in (*inferred.input, *inferred.value_info, *inferred.output)}

    def part(
        self, nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], constants: Sequence[onnx.TensorProto] = ()
    ) -> onnx.ModelProto:
        """Return a model of the nodes. Its inputs are what they read and neither compute nor have among the constants."""
        known = {name for node in nodes for name in node.output} | {constant.name for constant in constants}
        read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in known)
        graph = helper.make_graph(
            nodes,
            "part",
            [self._value(name) for name in read if name not in self._constants],
            [self._value(name) for name in outputs],
            [*constants, *(self._constants[name] for name in read if name in self._constants)],
        )
        return helper.make_model(graph, opset_imports=list(self._model.opset_import), ir_version=self._model.ir_version)

    def with_switches(
        self, nodes: Sequence[onnx.NodeProto], encodings: Mapping[str, Encoding], outputs: Sequence[str]
    ) -> onnx.ModelProto:
        """Return a model of the nodes in which each tensor with an encoding can be rounded: all of its readers see that."""
        switched, constants = [], []
        computed = {name for node in nodes for name in node.output}
        read_as = {name: f"{name}.switched" for name in encodings if name not in computed}  # inputs keep their names
        for name, renamed in read_as.items():
            added, parameters = _rounding(name, name, renamed, encodings[name])
            switched += added
            constants += parameters
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [read_as.get(name, name) for name in node.input]
            switched.append(copy)
            for i, name in enumerate(node.output):
                if name in encodings:
                    copy.output[i] = f"{name}.exact"
                    added, parameters = _rounding(name, copy.output[i], name, encodings[name])
                    switched += added
                    constants += parameters
        return self.part(switched, outputs, constants)

    def _value(self, name: str) -> onnx.ValueInfoProto:
        """Return the name with its type; a switch is one boolean."""
        if name.endswith(_switch_of("")):
            return helper.make_tensor_value_info(name, TensorProto.BOOL, [])
        return self._values[name]
