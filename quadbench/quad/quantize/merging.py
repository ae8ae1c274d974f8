"""Merging: a quantized U-Net, and an ONNX graph with which a device merges an adapter into the weights at load time.

The U-Net has the shared U-Net's encodings: the encoding of a site's sum is used for the site's own result. The weights at the
sites are in an external file. The merge graph takes LoRA inputs and computes the tensors of that file: the base's weights in
float, plus the product of the adapter's two matrices, rounded to INT8. A channel's scale is the base's, or larger if its weights
need it; its bias follows.

Using the base's INT8 weights alone would round twice, which costs 3 dB. So the file also has a residual, the rounding error of
the base, in INT8 at a 254th of the scale: the sum is made from 16 bits and rounded once.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quadbench.artifacts.bundle import Int8Share
from quadbench.quad.model import initializers
from quadbench.quad.model.lora import input_names
from quadbench.quad.model.lora_sites import Site, lora_sites, without_lora
from quadbench.quad.quantize import encodings as enc
from quadbench.quad.quantize.calibration import Feed, float_tensors
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.qdq import bias_key, encoding_sources, quantize_graph, typed_input, weight_key
from quadbench.quad.quantize.quantizer import int8_share

RESIDUAL = ".residual"  # suffix of the names of tensors with rounding errors
RESIDUAL_STEPS = 254  # per weight scale: INT8 up to 127 at this step covers half a scale, the greatest rounding error


@dataclass(frozen=True, kw_only=True)
class MergeableUnet:
    """A quantized U-Net with external weights at its LoRA layers, and the graph `merge` that adds an adapter to them."""

    unet: onnx.ModelProto
    merge: onnx.ModelProto
    int8: Int8Share


def make_mergeable(
    model: onnx.ModelProto, activations: Mapping[str, Encoding], lora: Mapping[str, Encoding], scratch: Path
) -> MergeableUnet:
    """Quantize a float U-Net. Return a MergeableUnet with a graph that merges LoRAs. LoRA layers' weights are in `scratch`."""
    sites = list(lora_sites(model))
    plain = without_lora(model)
    moved = {site.layer.output[0]: activations[site.total] for site in sites if activations}
    encodings = {**activations, **moved}
    unet = quantize_graph(plain, encodings)
    share = int8_share(plain, encoding_sources(plain, float_tensors(plain)), encodings, {})
    merge = _merge_graph(model, unet, sites, lora, scratch)
    return MergeableUnet(unet=unet, merge=merge, int8=share)


def merge_adapter(unet: onnx.ModelProto, merge: onnx.ModelProto, lora: Feed) -> onnx.ModelProto:
    """Merge a LoRA, given as integer arrays by input name. Return a copy of `unet` with the weights that `merge` computes."""
    session = initializers.open_session(merge)
    names = [output.name for output in session.get_outputs()]
    tensors = dict(zip(names, session.run(names, dict(lora)), strict=True))
    merged = deepcopy(unet)
    for constant in merged.graph.initializer:
        if constant.name in tensors:
            constant.CopyFrom(numpy_helper.from_array(tensors[constant.name], constant.name))
    return merged


def _merge_graph(
    model: onnx.ModelProto, unet: onnx.ModelProto, sites: list[Site], lora: Mapping[str, Encoding], scratch: Path
) -> onnx.ModelProto:
    """Move the weights of LoRA layers in `unet` to a file in `scratch`. Return an ONNX graph that merges a LoRA into them."""
    floats = {constant.name: constant for constant in model.graph.initializer}
    constants = {constant.name: constant for constant in unet.graph.initializer}
    merges = [_Merge(site=site, constants=constants, lora=lora) for site in sites]
    outputs = [name for merge in merges for name in merge.outputs]
    before = len(unet.graph.initializer)
    for merge in merges:
        unet.graph.initializer.append(merge.residual_of(floats[merge.site.layer.input[1]]))
    residuals = list(unet.graph.initializer[before:])
    initializers.move_to_file(unet, [*outputs, *(residual.name for residual in residuals)], scratch)
    del unet.graph.initializer[before:]  # only the merge graph reads them
    graph = helper.make_graph(
        [node for merge in merges for node in merge.nodes()],
        "merge",
        [typed_input(value, lora) for value in model.graph.input if value.name in lora],
        [helper.make_tensor_value_info(name, constants[name].data_type, constants[name].dims) for name in outputs],
        [*residuals, *(constant for merge in merges for constant in merge.own_constants())],
    )
    return helper.make_model(graph, opset_imports=list(unet.opset_import), ir_version=unet.ir_version)


@dataclass(frozen=True, kw_only=True)
class _Merge:
    """The part of a merge graph for one LoRA layer. `constants` maps tensor names to tensors of the quantized U-Net."""

    site: Site
    constants: Mapping[str, onnx.TensorProto]
    lora: Mapping[str, Encoding]

    @property
    def weight(self) -> str:
        """Return the name prefix of the quantized weight's tensors. Suffixes: `.int8`, `.scales`, `.zero_points`."""
        return weight_key(self.site.layer.input[1], axis=0)

    @property
    def bias(self) -> str | None:
        """Return the name prefix of the quantized bias's tensors, or None without a bias. Suffixes: `.int32`, `.scales`."""
        layer, site = self.site.layer, self.site
        output = site.total if layer.output[0] == site.own else layer.output[0]
        return bias_key(layer.input[2], output) if len(layer.input) > 2 else None

    @property
    def outputs(self) -> list[str]:
        """Return the tensor names that merging replaces in a LoRA layer: the weight, its scales, and any bias with its scales."""
        weight, bias = self.weight, self.bias
        has_bias = bias is not None and f"{bias}.int32" in self.constants
        return [f"{weight}.int8", f"{weight}.scales", *([f"{bias}.int32", f"{bias}.scales"] if has_bias else [])]

    @property
    def residual(self) -> str:
        """Return the name of a LoRA layer's residual, a tensor with the rounding errors of the base model's INT8 weight."""
        return f"{self.weight}{RESIDUAL}"

    def residual_of(self, weight: onnx.TensorProto) -> onnx.TensorProto:
        """Return a float weight's INT8 rounding error as INT8 (O, I[, k, k]), with scale = weight scale / RESIDUAL_STEPS."""
        integers, scales = (numpy_helper.to_array(self.constants[f"{self.weight}.{part}"]) for part in ("int8", "scales"))
        by_channel = scales.reshape(-1, *[1] * (integers.ndim - 1))
        lacking = (initializers.value(weight) / by_channel - integers) * RESIDUAL_STEPS
        low, high = enc.limits("int8")
        return numpy_helper.from_array(lacking.round().clip(low, high).astype(np.int8), self.residual)

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """Yield ONNX nodes that add the LoRA product to a layer's weight, quantize the sum to INT8, and rescale the bias."""
        (down, up), at, weight = input_names(self.site.name), self.site.name, self.weight
        yield self._node("DequantizeLinear", [down, f"{at}.down.scale"], "down.float")
        yield self._node("DequantizeLinear", [up, f"{at}.up.scale"], "up.float")
        yield self._node("Reshape", [f"{at}.down.float", f"{at}.down.shape"], "down")  # (r, I k k)
        yield self._node("Reshape", [f"{at}.up.float", f"{at}.up.shape"], "up")  # (O, r)
        yield self._node("MatMul", [f"{at}.up", f"{at}.down"], "product")
        base = [_base(f"{weight}.int8"), _base(f"{weight}.scales")]
        yield self._node("DequantizeLinear", base, "rounded", axis=0)
        yield self._node("Div", [base[1], f"{at}.steps"], "step")
        yield self._node("DequantizeLinear", [self.residual, f"{at}.step"], "lacking", axis=0)
        yield self._node("Add", [f"{at}.rounded", f"{at}.lacking"], "base.float")
        yield self._node("Reshape", [f"{at}.base.float", f"{at}.up.shape"], "base")
        yield self._node("Add", [f"{at}.base", f"{at}.product"], "sum")
        yield self._node("Abs", [f"{at}.sum"], "magnitudes")
        yield self._node("ReduceMax", [f"{at}.magnitudes", f"{at}.rows"], "magnitude", keepdims=0)
        yield self._node("Div", [f"{at}.magnitude", f"{at}.limit"], "least")
        yield helper.make_node("Max", [f"{at}.least", base[1]], [f"{weight}.scales"])
        yield self._node("QuantizeLinear", [f"{at}.sum", f"{weight}.scales", f"{weight}.zero_points"], "integers", axis=0)
        yield helper.make_node("Reshape", [f"{at}.integers", f"{at}.shape"], [f"{weight}.int8"])
        if len(self.outputs) > 2:
            bias = self.bias
            yield self._node("Div", [f"{weight}.scales", base[1]], "growth")
            yield helper.make_node("Mul", [_base(f"{bias}.scales"), f"{at}.growth"], [f"{bias}.scales"])
            yield self._node("Cast", [_base(f"{bias}.int32")], "bias.float", to=TensorProto.FLOAT)
            yield self._node("Div", [f"{at}.bias.float", f"{at}.growth"], "bias.shrunk")
            yield self._node("Round", [f"{at}.bias.shrunk"], "bias.rounded")
            yield helper.make_node("Cast", [f"{at}.bias.rounded"], [f"{bias}.int32"], to=TensorProto.INT32)

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: int) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [f"{self.site.name}.{name}"], **attributes)

    def own_constants(self) -> Iterator[onnx.TensorProto]:
        """Yield the ONNX constants that a layer's merge nodes read, except the residual. Base weights lie in the U-Net's file."""
        down, up = (np.float32(self.lora[name].scale) for name in input_names(self.site.name))
        shape = list(self.constants[f"{self.weight}.int8"].dims)
        values = {
            "down.scale": down,
            "up.scale": up,
            "down.shape": np.array([0, -1]),
            "up.shape": np.array([shape[0], -1]),
            "rows": np.array([1]),
            "limit": np.float32(enc.limits("int8")[1]),
            "steps": np.float32(RESIDUAL_STEPS),
            "shape": np.array(shape),
        }
        for name, value in values.items():
            yield numpy_helper.from_array(np.asarray(value), f"{self.site.name}.{name}")
        yield self.constants[f"{self.weight}.zero_points"]
        for name in self.outputs:
            of_base = deepcopy(self.constants[name])
            of_base.name = _base(name)
            yield of_base


def _base(name: str) -> str:
    return f"{name}.base"
