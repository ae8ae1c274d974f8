"""LoRA sites: the LoRA branches of a float ONNX graph, which can be resized, removed, or merged into the weights."""

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from quadbench.artifacts import LORA_PREFIX
from quadbench.quad.model import initializers
from quadbench.quad.model.lora import GraphInputs, input_names
from quadbench.quad.quantize.passes import add_constant, replace_nodes


@dataclass(frozen=True, kw_only=True)
class Site:
    """A LoRA layer (site) in a float graph. Tensor `own` is the base layer's result; `total` is `own` plus the LoRA product.

    `down` holds the nodes from the input `down` up to the product with `up`, `up` those from the input `up` to the sum. The
    product belongs to `up`, and the sum to neither.
    """

    name: str
    layer: onnx.NodeProto
    own: str
    total: str
    down: tuple[onnx.NodeProto, ...]
    up: tuple[onnx.NodeProto, ...]


def lora_sites(model: onnx.ModelProto) -> Iterator[Site]:
    """Yield each LoRA layer of a float graph, in the order of its inputs."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producers = {output: node for node in model.graph.node for output in node.output}

    def path(start: str, stop: Collection[str]) -> tuple[onnx.NodeProto, ...]:
        """Return the nodes that follow a tensor, each the only reader of the one before, up to a node that writes in `stop`."""
        nodes: list[onnx.NodeProto] = []
        while (node := readers[start][0]).output[0] not in stop:
            nodes.append(node)
            start = node.output[0]
        return tuple(nodes)

    sums = {node.output[0] for node in model.graph.node if node.op_type == "Add"}
    for value in model.graph.input:
        site = value.name.removeprefix(LORA_PREFIX).removesuffix(".up")
        if value.name != input_names(site)[1]:
            continue
        up = path(value.name, sums)
        product = next(node for node in up if node.op_type != "Transpose")  # of a vector, whose factor is transposed
        total = readers[up[-1].output[0]][0]
        (own,) = (name for name in total.input if name != up[-1].output[0])
        layer = producers[own]
        while layer.op_type in ("Reshape", "Add"):  # an Add adds a bias
            layer = producers[next(name for name in layer.input if name in producers)]
        down = path(input_names(site)[0], product.output)
        yield Site(name=site, layer=layer, own=own, total=total.output[0], down=down, up=up)


def with_ranks(model: onnx.ModelProto, ranks: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy of a float graph with LoRA inputs of these ranks at these layers, and at no others.

    The graph must have LoRA inputs at all of these layers, of any rank. If it is large, both use one file of weights.
    """
    resized = deepcopy(model)
    sites = list(lora_sites(resized))
    inputs = {value.name: value for value in resized.graph.input}
    constants = {constant.name: constant for constant in resized.graph.initializer}
    for site in sites:
        if site.name not in ranks:
            continue
        rank = ranks[site.name]
        for name, axis in zip(input_names(site.name), (0, 1), strict=True):
            inputs[name].type.tensor_type.shape.dim[axis].dim_value = rank
        for node in site.down:
            if node.op_type == "Reshape":
                sizes = np.array(initializers.value(constants[node.input[1]]))
                sizes[-1] = rank
                node.input[1] = add_constant(resized, f"shape.{'x'.join(map(str, sizes))}", sizes)
    _remove(resized, [site for site in sites if site.name not in ranks])
    _forget_shapes(resized, [site for site in sites if site.name in ranks])
    return resized


def without_lora(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a float graph without LoRA inputs and LoRA products: each LoRA layer returns its base layer's result."""
    plain = deepcopy(model)
    _remove(plain, list(lora_sites(plain)))
    return plain


def with_merged(model: onnx.ModelProto, tensors: GraphInputs, scratch: Path) -> onnx.ModelProto:
    """Return a copy of a float graph without LoRA inputs, in which `tensors` (by LoRA input name) are merged into the weights.

    Changed weights of a large graph are in a new file in `scratch`; the others are in the file of `model`.
    """
    merged = deepcopy(model)
    sites = list(lora_sites(merged))
    constants = {constant.name: constant for constant in merged.graph.initializer}
    with initializers.WeightsFile(scratch) as file:
        for site in sites:
            down, up = (tensors.get(name) for name in input_names(site.name))
            if down is None or up is None:
                continue
            weight, name = constants[site.layer.input[1]], f"{site.name}.merged"
            base = torch.from_numpy(np.array(initializers.value(weight)))
            delta = up.flatten(1) @ down.flatten(1)  # (out, r) @ (r, in*k*k) -> (out, in*k*k)
            total = (base + (delta if _has_rows_of_outputs(site.layer) else delta.T).reshape(base.shape)).numpy()
            own = file.add(name, total) if uses_external_data(weight) else numpy_helper.from_array(total, name)
            merged.graph.initializer.append(own)
            site.layer.input[1] = name
    _remove(merged, sites)
    return merged


def _has_rows_of_outputs(layer: onnx.NodeProto) -> bool:
    """Return whether a layer's weight is (out, in, ...), as of Conv and of Gemm with transB=1, and not (in, out)."""
    return layer.op_type == "Conv" or any(attribute.name == "transB" and attribute.i for attribute in layer.attribute)


def _remove(model: onnx.ModelProto, sites: Collection[Site]) -> None:
    """Remove LoRA layers' inputs and products from a graph, in place."""
    totals = {site.own: site.total for site in sites}
    removed = {name for site in sites for name in input_names(site.name)}
    nodes = [node for node in model.graph.node if node.output[0] not in totals.values()]
    for node in nodes:
        node.output[0] = totals.get(node.output[0], node.output[0])
    replace_nodes(model, nodes)
    kept = [value for value in model.graph.input if value.name not in removed]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    _forget_shapes(model, sites)


def _forget_shapes(model: onnx.ModelProto, sites: Collection[Site]) -> None:
    """Remove the stored shapes of tensors in LoRA branches, which shape inference finds again."""
    forgotten = {output for site in sites for node in (*site.down, *site.up) for output in node.output}
    kept = [value for value in model.graph.value_info if value.name not in forgotten]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
