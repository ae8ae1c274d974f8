"""Layers: a float graph -> the base's convolutions and linear maps; and encodings -> how much of the U-Net runs in 8 bits.

A layer runs in 8 bits (W8A8) if its data and its result both have 8 bits: its weights always have. Attention's products have no
weights and are no layers; neither is a norm's scale, which a pass writes as a convolution of each channel by itself.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from quadbench.artifacts import Int8Share, Share
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.passes import value_shapes
from quadbench.quad.quantize.qdq import WEIGHT_AXIS

BITS = 8


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer by its node's name. Data and result have the encodings of the tensors `data` and `result`."""

    name: str
    data: str
    result: str
    parameters: int
    multiply_accumulates: int


def base_layers(model: onnx.ModelProto, sources: Mapping[str, str]) -> tuple[Layer, ...]:
    """Return the base's layers in the graph's order; `sources` is `qdq.encoding_sources`."""
    shapes = value_shapes(model)
    sizes = {constant.name: math.prod(constant.dims) for constant in model.graph.initializer}
    return tuple(
        Layer(
            name=node.name or node.output[0],
            data=sources[node.input[0]],
            result=sources[node.output[0]],
            parameters=sum(sizes.get(name, 0) for name in node.input[1:]),
            multiply_accumulates=sizes[node.input[1]] * _repeats(node, shapes[node.output[0]]),
        )
        for node in model.graph.node
        if _is_layer(node, sizes, shapes) and node.input[0] in sources
    )


def narrow_layers(layers: Sequence[Layer], narrow: Collection[str]) -> list[Layer]:
    """Return the layers on whose both sides 8 bits stand, where the tensors `narrow` have them."""
    return [layer for layer in layers if layer.data in narrow and layer.result in narrow]


def int8_share(
    model: onnx.ModelProto, sources: Mapping[str, str], activations: Mapping[str, Encoding], lora: Mapping[str, Encoding]
) -> Int8Share:
    """Count what runs in 8 bits under these encodings. A LoRA product does if its weights have 8 bits, too."""
    layers = base_layers(model, sources)
    narrow = {name for name, encoding in activations.items() if encoding.bits == BITS}
    chosen = narrow_layers(layers, narrow)
    products = [node for node in model.graph.node if node.op_type in WEIGHT_AXIS and sources.get(node.input[1]) in lora]
    is_narrow = [{node.input[0], node.output[0]} <= narrow and lora[sources[node.input[1]]].bits == BITS for node in products]
    return Int8Share(
        layers=_share(chosen, layers, lambda layer: 1),
        parameters=_share(chosen, layers, lambda layer: layer.parameters),
        multiply_accumulates=_share(chosen, layers, lambda layer: layer.multiply_accumulates),
        lora_products=Share(int8=sum(is_narrow), total=len(products)),
    )


def _share(chosen: Sequence[Layer], layers: Sequence[Layer], count: Callable[[Layer], int]) -> Share:
    return Share(int8=sum(map(count, chosen)), total=sum(map(count, layers)))


def _is_layer(node: onnx.NodeProto, sizes: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Say whether a node has weights of its own, and mixes channels."""
    if node.op_type not in WEIGHT_AXIS or node.input[1] not in sizes:
        return False
    groups = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "group"), 1)
    return groups == 1 or groups != _channels(node, shapes[node.output[0]])


def _repeats(node: onnx.NodeProto, result: tuple[int, ...]) -> int:
    """Return how often each weight is used for a result of this shape."""
    return math.prod(result) // _channels(node, result)


def _channels(node: onnx.NodeProto, result: tuple[int, ...]) -> int:
    """Return the number of output channels: a filter gives (N, C, h, w), a matrix (..., C)."""
    return result[1] if node.op_type == "Conv" else result[-1]
