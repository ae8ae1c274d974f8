"""Graphs: a foundation model -> its float graphs, and their inputs and outputs as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import helper

from quadbench.artifacts import LORA_PREFIX, Component, TensorSpec
from quadbench.quad.model.components import TextEncoderGraph, VaeDecoderGraph, VaeEncoderGraph, with_plain_attention
from quadbench.quad.model.export import export_graph
from quadbench.quad.model.foundation import Foundation, time_features
from quadbench.quad.model.lora import UnetGraph
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.passes import passes_of


@dataclass(frozen=True, kw_only=True)
class FloatGraphs:
    """A foundation model's float graphs, and the shapes of the U-Net's LoRA inputs in the graph's order."""

    models: dict[Component, onnx.ModelProto]
    lora_shapes: dict[str, tuple[int, ...]]


def export_graphs(foundation: Foundation, ranks: Mapping[str, int], scratch: Path) -> FloatGraphs:
    """Export every component; the U-Net has LoRA inputs of the given ranks. Large weights stay in files below `scratch`."""
    parts = (Component.TEXT_ENCODER, Component.VAE_ENCODER, Component.VAE_DECODER)
    models = {part: export_component(foundation, part, scratch) for part in parts}
    foundation.release()
    models[Component.UNET] = unet = export_unet(foundation, foundation.unet, ranks, scratch)
    foundation.release()
    return FloatGraphs(models=models, lora_shapes=_lora_shapes(unet))


def export_component(foundation: Foundation, component: Component, scratch: Path) -> onnx.ModelProto:
    """Export a component other than the U-Net and rewrite it by its passes. Large weights stay in files below `scratch`."""
    size, latent = foundation.image_size, (1, foundation.latent_channels, foundation.latent_size, foundation.latent_size)
    match component:
        case Component.TEXT_ENCODER:
            ids = torch.tensor([foundation.tokenize("")], dtype=torch.int32)
            names, output = ["input_ids"], "encoder_hidden_states"
            module = TextEncoderGraph(foundation.text_encoder)
            model = export_graph(module, (ids,), input_names=names, output_name=output, scratch=scratch)
        case Component.VAE_ENCODER:
            image = torch.zeros(1, 3, size, size)
            encoder = VaeEncoderGraph(foundation.vae)
            model = export_graph(encoder, (image,), input_names=["image"], output_name="latent", scratch=scratch)
        case Component.VAE_DECODER:
            decoder = VaeDecoderGraph(foundation.vae)
            model = export_graph(decoder, (torch.zeros(latent),), input_names=["latent"], output_name="image", scratch=scratch)
        case Component.UNET:
            raise ValueError("the U-Net is exported by export_unet")
    for rewrite in passes_of(component):
        rewrite(model)
    return model


def export_unet(foundation: Foundation, unet: torch.nn.Module, ranks: Mapping[str, int], scratch: Path) -> onnx.ModelProto:
    """Export the U-Net with LoRA inputs at the given sites and rewrite it by its passes.

    Without sites it is the plain graph that a merged adapter needs. Large weights stay in a file below `scratch`.
    """
    module = UnetGraph(with_plain_attention(unet), ranks).eval()
    shape = (1, foundation.latent_channels, foundation.latent_size, foundation.latent_size)
    text = torch.zeros(1, len(foundation.tokenize("")), unet.config.cross_attention_dim)  # (1, T, D)
    lora = [torch.zeros(module.lora_shapes[name]) for name in module.lora_names]
    arguments = (torch.zeros(shape), time_features(foundation, [0.0]), text, lora)
    names = ["sample", "time_features", "encoder_hidden_states", *module.lora_names]
    model = export_graph(module, arguments, input_names=names, output_name="eps", scratch=scratch)
    for rewrite in passes_of(Component.UNET):
        rewrite(model)
    return model


def _lora_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a U-Net graph's LoRA inputs, in the graph's order."""
    return {spec.name: spec.shape for spec in specs(model.graph.input) if spec.name.startswith(LORA_PREFIX)}


def specs(values: Iterable[onnx.ValueInfoProto], lora: Mapping[str, Encoding] | None = None) -> tuple[TensorSpec, ...]:
    """Return graph inputs or outputs as data. `lora` holds the encodings of LoRA inputs, for their scales."""
    scales = {name: encoding.scale for name, encoding in (lora or {}).items()}
    return tuple(
        TensorSpec(
            name=value.name,
            shape=tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
            dtype=helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            scale=scales.get(value.name),
        )
        for value in values
    )
