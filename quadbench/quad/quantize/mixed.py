"""Mixed precision: a float graph, the 8-bit encodings it might have and its feeds -> which of them cost least, as measured.

The noise of an encoding is that of the graph's output when the tensors that have it, and nothing else, are rounded to 8 bits.
Nothing changes before such a tensor. So the graph is cut into segments: the nodes before one run once for each feed, and for each
encoding only the rest.
"""

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from onnx import helper

from quadbench.quad.model.initializers import open_session
from quadbench.quad.quantize.encodings import Encoding, dequantize, quantize

SEGMENTS = 12  # halves the time of a run; more of them cost as much in loading as they save
Values = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class EncodingNoise:
    """The cost of one encoding in 8 bits: `tensor` is its source, `sqnr_db` the output's SQNR, None if nothing changes."""

    tensor: str
    sqnr_db: float | None


def encoding_noise(
    model: onnx.ModelProto, encodings: Mapping[str, Encoding], feeds: Sequence[Mapping[str, np.ndarray]]
) -> tuple[EncodingNoise, ...]:
    """Round one encoding's tensors at a time, over all feeds. The least noise comes first, equal noise in the graph's order.

    `encodings` is by source (`qdq.encoding_sources`): nodes that only move its values move rounded ones. The graph has one
    output.
    """
    signal, noise = 0.0, dict.fromkeys(encodings, 0.0)
    known = [dict(feed) for feed in feeds]  # for each feed, the values that later nodes read
    for segment in _segments(model, encodings):
        known = segment.run(known)
        signal, noise_of_segment = segment.noise(known, encodings)
        noise |= noise_of_segment
    ordered = sorted(noise, key=noise.__getitem__)
    return tuple(EncodingNoise(tensor=name, sqnr_db=_sqnr_db(signal, noise[name])) for name in ordered)


def least_noisy(noise: Sequence[EncodingNoise], percent: int) -> list[str]:
    """Return the sources of the first `percent` %, rounded to a whole number."""
    return [row.tensor for row in noise[: round(len(noise) * percent / 100)]]


def _sqnr_db(signal: float, noise: float) -> float | None:
    """Return the ratio of two energies in dB; None if there is no signal or no noise."""
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """Consecutive nodes of the graph, the sources among their outputs, and the nodes from the first of them to the output."""

    sources: tuple[str, ...]  # those among the graph's inputs are the first segment's
    nodes: onnx.ModelProto  # its outputs are the sources and what later nodes read
    rest: onnx.ModelProto  # has one more input for each source that it computes, to be added to it

    def run(self, known: Sequence[Values]) -> list[Values]:
        """Add this segment's outputs to the known values, and drop those that no later node reads."""
        session = open_session(self.nodes)
        names = [output.name for output in self.nodes.graph.output]
        outputs = [dict(zip(names, session.run(names, _inputs(self.nodes, values)), strict=True)) for values in known]
        return [_inputs(self.rest, values) | new for values, new in zip(known, outputs, strict=True)]

    def noise(self, known: Sequence[Values], encodings: Mapping[str, Encoding]) -> tuple[float, dict[str, float]]:
        """Return the output's energy over all feeds, and for each source that of the output's change when it alone is rounded."""
        session = open_session(self.rest, threads=1)
        added = [_noise_input(name) for name in self.sources]
        silence = {v.name: np.zeros(_shape(v), np.float32) for v in self.rest.graph.input if v.name in added}
        quiet = [_inputs(self.rest, values) | silence for values in known]

        def output(values: Values) -> np.ndarray:
            return session.run(None, values)[0]

        def energy_of(source: str) -> float:
            noisy = [feed | self._noisy(source, values, encodings[source]) for feed, values in zip(quiet, known, strict=True)]
            return sum(_energy(output(feed) - right) for feed, right in zip(noisy, exact, strict=True))

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # runs side by side: small operators gain little from more threads
            exact = list(pool.map(output, quiet))
            return sum(map(_energy, exact)), dict(zip(self.sources, pool.map(energy_of, self.sources), strict=True))

    def _noisy(self, source: str, values: Values, encoding: Encoding) -> Values:
        """Return what is fed in place of the exact value: a rounded graph input, or the noise to add to a computed source."""
        exact = values[source]
        rounded = dequantize(quantize(exact, encoding), encoding)
        is_input = any(v.name == source for v in self.rest.graph.input)
        return {source: rounded} if is_input else {_noise_input(source): rounded - exact}


def _energy(values: np.ndarray) -> float:
    """Return the sum of squares, in float64."""
    return float(np.square(values, dtype=np.float64).sum())


def _inputs(model: onnx.ModelProto, values: Values) -> Values:
    """Return those of the values that the graph takes."""
    return {v.name: values[v.name] for v in model.graph.input if v.name in values}


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def _noise_input(source: str) -> str:
    """Return the name of the input that is added to a source."""
    return f"{source}.noise"


def _segments(model: onnx.ModelProto, sources: Collection[str]) -> Iterator[_Segment]:
    """Cut the graph into SEGMENTS parts of as many nodes each."""
    cutter = _Cutter(model)
    nodes, results = list(model.graph.node), [value.name for value in model.graph.output]
    cuts = sorted({round(len(nodes) * i / SEGMENTS) for i in range(SEGMENTS + 1)})
    for first, last in pairwise(cuts):
        outputs = [name for node in nodes[first:last] for name in node.output]
        own = [name for name in ([v.name for v in model.graph.input] if first == 0 else []) + outputs if name in sources]
        read_later = {*(name for node in nodes[last:] for name in node.input), *results}
        yield _Segment(
            sources=tuple(own),
            nodes=cutter.part(nodes[first:last], [name for name in outputs if name in sources or name in read_later]),
            rest=cutter.part(_with_noise(nodes[first:], set(own)), results),
        )


def _with_noise(nodes: Sequence[onnx.NodeProto], sources: Collection[str]) -> list[onnx.NodeProto]:
    """Add an input to each source that the nodes compute; its readers read the sum."""
    noisy = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        noisy.append(copy)
        for i, name in enumerate(node.output):
            if name in sources:
                copy.output[i] = f"{name}.exact"
                noisy.append(helper.make_node("Add", [copy.output[i], _noise_input(name)], [name]))
    return noisy


class _Cutter:
    """A model to cut smaller models from."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {constant.name: constant for constant in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self._values = {v.name: v for v in (*inferred.input, *inferred.value_info, *inferred.output)}

    def part(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.ModelProto:
        """Return a model of the nodes. Its inputs are what they read and do not compute; a noise input has its source's type."""
        computed = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in computed)
        graph = helper.make_graph(
            nodes,
            "part",
            [self._value(name) for name in read if name not in self._constants],
            [self._value(name) for name in outputs],
            [self._constants[name] for name in read if name in self._constants],
        )
        return helper.make_model(graph, opset_imports=list(self._model.opset_import), ir_version=self._model.ir_version)

    def _value(self, name: str) -> onnx.ValueInfoProto:
        """Return the name with its type."""
        value = onnx.ValueInfoProto()
        value.CopyFrom(self._values[name.removesuffix(_noise_input(""))])
        value.name = name
        return value
