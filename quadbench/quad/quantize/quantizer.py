"""Quantizer: QDQ graphs. The layers with the least rounding error get 8-bit activations, the others 16-bit. Imports no torch."""

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.artifacts.bundle import Int8Fraction, Int8Share
from quadbench.host import release_memory
from quadbench.quad.divergence import ratio_db, spread
from quadbench.quad.model.initializers import open_session
from quadbench.quad.quantize.calibration import (
    PLAIN_RULES,
    Feed,
    RangeRule,
    Remember,
    anew,
    float_tensors,
    observe_histograms,
    observe_ranges,
)
from quadbench.quad.quantize.encodings import Encoding, Range
from quadbench.quad.quantize.passes import inferred_values, value_shapes
from quadbench.quad.quantize.qdq import WEIGHT_AXIS, activation_encodings, encoding_sources, quantize_graph

BITS = 8
SEGMENTS = 12  # halves the run time; more segments cost as much loading time as they save
Values = dict[str, np.ndarray]
NOISE_SAMPLES = 8  # number of calibration feeds, evenly spread


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution or linear layer. Its input has the encoding of the tensor `data`, its output the encoding of `result`."""

    name: str
    data: str
    result: str
    parameters: int
    multiply_accumulates: int


def base_layers(model: onnx.ModelProto, sources: Mapping[str, str]) -> tuple[Layer, ...]:
    """Return a Layer per conv (not depthwise) or linear layer with constant weights. `sources` comes from `encoding_sources`."""
    shapes = value_shapes(model)
    sizes = {constant.name: math.prod(constant.dims) for constant in model.graph.initializer}
    return tuple(
        Layer(
            name=node.name or node.output[0],
            data=sources[node.input[0]],
            result=sources[node.output[0]],
            parameters=sum(sizes.get(name, 0) for name in node.input[1:]),
            multiply_accumulates=sizes[node.input[1]]
            * math.prod(shapes[node.output[0]])
            // _channels(node, shapes[node.output[0]]),
        )
        for node in model.graph.node
        if _is_layer(node, sizes, shapes) and node.input[0] in sources
    )


def narrow_layers(layers: Sequence[Layer], narrow: Collection[str]) -> list[Layer]:
    """Return those layers whose input and output are 8-bit tensors. `narrow` has the names of all 8-bit tensors."""
    return [layer for layer in layers if layer.data in narrow and layer.result in narrow]


def int8_share(
    model: onnx.ModelProto, sources: Mapping[str, str], activations: Mapping[str, Encoding], lora: Mapping[str, Encoding]
) -> Int8Share:
    """Return the numbers of layers, parameters, multiply-accumulates and LoRA matrix products, each as 8-bit count and total."""
    layers = base_layers(model, sources)
    narrow = {name for name, encoding in activations.items() if encoding.bits == BITS}
    chosen = narrow_layers(layers, narrow)
    products = [node for node in model.graph.node if node.op_type in WEIGHT_AXIS and sources.get(node.input[1]) in lora]
    is_narrow = [{node.input[0], node.output[0]} <= narrow and lora[sources[node.input[1]]].bits == BITS for node in products]
    return Int8Share(
        layers=_share(chosen, layers, lambda layer: 1),
        parameters=_share(chosen, layers, lambda layer: layer.parameters),
        multiply_accumulates=_share(chosen, layers, lambda layer: layer.multiply_accumulates),
        lora_products=Int8Fraction(int8=sum(is_narrow), total=len(products)),
    )


def _share(chosen: Sequence[Layer], layers: Sequence[Layer], count: Callable[[Layer], int]) -> Int8Fraction:
    return Int8Fraction(int8=sum(map(count, chosen)), total=sum(map(count, layers)))


def _is_layer(node: onnx.NodeProto, sizes: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether a node is a convolution or matrix product with constant weights, other than a depthwise convolution."""
    if node.op_type not in WEIGHT_AXIS or node.input[1] not in sizes:
        return False
    groups = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "group"), 1)
    return groups == 1 or groups != _channels(node, shapes[node.output[0]])


def _channels(node: onnx.NodeProto, result: tuple[int, ...]) -> int:
    """Return the number of output channels, given the result's shape: (N, C, h, w) of a Conv or (..., C) of a matrix product."""
    return result[1] if node.op_type == "Conv" else result[-1]


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """A layer, and the graph output's SQNR in dB with only that layer in 8 bits. `sqnr_db` is None if the output is unchanged."""

    layer: Layer
    sqnr_db: float | None

    @property
    def per_parameter(self) -> float:
        """Return the graph output's noise-to-signal ratio with only `layer` in 8 bits, divided by `layer`'s parameter count."""
        return 0.0 if self.sqnr_db is None else 10 ** (-self.sqnr_db / 10) / self.layer.parameters


def layer_noise(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    encodings: Mapping[str, Encoding],
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> tuple[LayerNoise, ...]:
    """Return a LayerNoise per layer: how far the graph's output changes if only that layer is rounded to 8 bits.
    The layer with the least noise per parameter comes first.

    `encodings` is keyed by source (`qdq.encoding_sources`), so moved values are rounded. The graph must have one output.
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
    """Return the set of names of tensors to make 8-bit: inputs and outputs of the layers that come first in `noise`.
    All layers with two 8-bit tensors together have about `percent` % of the parameters. `noise` begins with the least noisy.
    """
    layers = [row.layer for row in noise]
    tensors = [set[str]()]
    for layer in layers:
        tensors.append(tensors[-1] | {layer.data, layer.result})
    wanted = sum(layer.parameters for layer in layers) * percent / 100
    return min(tensors, key=lambda narrow: abs(sum(layer.parameters for layer in narrow_layers(layers, narrow)) - wanted))


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """A part of a graph: `nodes` and the `layers` whose inputs they compute. `rest` is a model of `nodes` and all later nodes."""

    layers: tuple[Layer, ...]  # layers that read a graph input belong to the first segment
    nodes: onnx.ModelProto  # its outputs are the tensors that later nodes read
    rest: onnx.ModelProto  # has an additional boolean input per tensor of the layers, which switches its rounding

    def run(self, known: Sequence[Values]) -> list[Values]:
        """Run the segment on each feed's dict of tensor values by name. Return copies of the dicts with the outputs added."""
        session = open_session(self.nodes)
        names = [output.name for output in self.nodes.graph.output]
        outputs = [session.run(names, _inputs(self.nodes, values)) for values in known]
        return [values | dict(zip(names, own, strict=True)) for values, own in zip(known, outputs, strict=True)]

    def noise(self, known: Sequence[Values]) -> tuple[float, dict[str, float]]:
        """Return (output energy, dict from layer name to error energy if only that layer is rounded). Energy: sum of squares."""
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
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # parallel runs: small operators gain little from more threads
            noise = pool.map(energy_of, self.layers)
            return sum(map(_energy, exact)), {layer.name: own for layer, own in zip(self.layers, noise, strict=True)}


def _energy(values: np.ndarray) -> float:
    """Return the sum of squares of the values, computed in float64."""
    return float(np.square(values, dtype=np.float64).sum())


def _inputs(model: onnx.ModelProto, values: Values) -> Values:
    """Return the entries of `values` (tensor values by name) that are inputs of the graph."""
    return {v.name: values[v.name] for v in model.graph.input if v.name in values}


def _segments(model: onnx.ModelProto, layers: Sequence[Layer], encodings: Mapping[str, Encoding]) -> Iterator[_Segment]:
    """Yield the graph cut into SEGMENTS consecutive segments with equally many nodes."""
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
    """Return the name of the boolean graph input that turns a tensor's rounding on."""
    return f"{tensor}.is_rounded"


def _rounding(tensor: str, exact: str, result: str, encoding: Encoding) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return (nodes, constants) that copy `exact` to `result`, quantized and dequantized if the `_switch_of` input is true."""
    scale, zero_point = f"{tensor}.scale", f"{tensor}.zero_point"
    nodes = [
        helper.make_node("QuantizeLinear", [exact, scale, zero_point], [f"{tensor}.integers"]),
        helper.make_node("DequantizeLinear", [f"{tensor}.integers", scale, zero_point], [f"{tensor}.rounded"]),
        helper.make_node("Where", [_switch_of(tensor), f"{tensor}.rounded", exact], [result]),
    ]
    constants = {scale: np.float32(encoding.scale), zero_point: np.array(encoding.zero_point, encoding.dtype)}
    return nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


class _Cutter:
    """A tool that makes smaller models from one ONNX model, each with some of its nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {constant.name: constant for constant in model.graph.initializer}
        self._values = {value.name: value for value in inferred_values(model)}

    def part(
        self, nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], constants: Sequence[onnx.TensorProto] = ()
    ) -> onnx.ModelProto:
        """Return a model of the given nodes. Tensors that other nodes compute become its inputs; constants are copied into it."""
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
        """Return a model of the given nodes. A boolean input per tensor in `encodings` turns the tensor's rounding on."""
        switched, constants = [], []
        computed = {name for node in nodes for name in node.output}
        read_as = {name: f"{name}.switched" for name in encodings if name not in computed}  # inputs keep their names
        for name, renamed in read_as.items():
            added, parameters = _rounding(name, name, renamed, encodings[name])
            switched += added
            constants += parameters
        for node in nodes:
            copy = deepcopy(node)
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
        """Return a tensor's ONNX ValueInfoProto: a boolean scalar for a `_switch_of` name, else the inferred type and shape."""
        if name.endswith(_switch_of("")):
            return helper.make_tensor_value_info(name, TensorProto.BOOL, [])
        return self._values[name]


class ObservedGraph:
    """A float graph with the ranges of its tensors observed over groups of feeds. Histograms are computed on first use.
    `remember` may have what was observed of a group in an earlier build.
    """

    def __init__(self, model: onnx.ModelProto, *groups: Sequence[Feed], remember: Remember = anew) -> None:
        self.model, self.feeds = model, [feed for group in groups for feed in group]
        self._groups, self._remember = [group for group in groups if group], remember
        self.seen = observe_ranges(model, *self._groups, remember=remember)
        self.sources = encoding_sources(model, self.seen)
        release_memory()

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """A dict from tensor name to the histogram of the tensor's values over its observed range: int64, (BINS,). Tensors whose
        values were only moved are left out.
        """
        seen = {name: self.seen[name] for name, source in self.sources.items() if name == source}
        counts = observe_histograms(self.model, seen, *self._groups, remember=self._remember)
        release_memory()
        return counts


class CalibratedGraph:
    """A float graph with its tensors' quantization ranges. Each layer's 8-bit rounding error is measured on first use."""

    def __init__(self, observed: ObservedGraph, rules: Mapping[str, RangeRule] = PLAIN_RULES) -> None:
        self.model, self.sources = observed.model, observed.sources
        self._observed, self._rules = observed, rules

    def ranges(self, dtype: str) -> dict[str, Range]:
        """Return a dict from float tensor name to Range (low, high) for quantization, computed by the RangeRule for `dtype`."""
        rule, seen = self._rules[dtype], self._observed.seen
        counts = self._observed.counts if rule.estimator else {}
        ranges = {name: rule.range_of(seen[name], counts.get(name), dtype) for name in set(self.sources.values())}
        return {name: ranges[source] for name, source in self.sources.items()}

    def encodings(self, dtype: str, lora: Mapping[str, Encoding] | None = None) -> dict[str, Encoding]:
        """Return a dict from activation tensor name to Encoding. `dtype` is the integer type, `uint16` or `uint8`."""
        return activation_encodings(self.model, self.ranges(dtype), dtype=dtype, lora=lora)

    @cached_property
    def noise(self) -> tuple[LayerNoise, ...]:
        """A tuple with a LayerNoise per layer, from at most NOISE_SAMPLES feeds. The least noise per parameter comes first."""
        feeds, layers = self._observed.feeds, base_layers(self.model, self.sources)
        few = [feeds[i] for i in spread(len(feeds), NOISE_SAMPLES)]
        return layer_noise(self.model, layers, self.encodings("uint8"), few)


@dataclass(frozen=True, kw_only=True)
class QuantizedGraph:
    """A QDQ graph with its activation encodings by tensor name, LayerNoise per layer (empty if unmeasured), and 8-bit counts."""

    model: onnx.ModelProto
    activations: dict[str, Encoding]
    noise: tuple[LayerNoise, ...]
    int8: Int8Share


def write_weight_only(model: onnx.ModelProto, *, lora: Mapping[str, Encoding] | None = None) -> QuantizedGraph:
    """Return the float graph with its weights and LoRA inputs quantized. Activations stay float."""
    sources = encoding_sources(model, float_tensors(model))
    share = int8_share(model, sources, {}, lora or {})
    return QuantizedGraph(model=quantize_graph(model, {}, lora), activations={}, noise=(), int8=share)


def write_qdq(
    calibrated: CalibratedGraph, *, int8_percent: int = 0, lora: Mapping[str, Encoding] | None = None
) -> QuantizedGraph:
    """Return the QDQ form of a float graph. Layers with the least rounding error run in W8A8, all other layers in W8A16.
    The W8A8 layers have about `int8_percent` % of the parameters. At 100 %, every activation of the graph is 8-bit.
    """
    model, sources, wide = calibrated.model, calibrated.sources, calibrated.encodings("uint16", lora)
    noise = calibrated.noise if 0 < int8_percent < 100 else ()
    chosen = set(sources.values()) if int8_percent == 100 else least_noisy(noise, int8_percent)
    narrow = calibrated.encodings("uint8", lora) if chosen else wide
    encodings = {name: (narrow if sources[name] in chosen else wide)[name] for name in wide}
    return QuantizedGraph(
        model=quantize_graph(model, encodings, lora),
        activations=encodings,
        noise=noise,
        int8=int8_share(model, sources, encodings, lora or {}),
    )
