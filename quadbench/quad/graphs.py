"""Graphs: a foundation model -> its float graphs, and their quantized forms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import helper

from quadbench.artifacts import Component, TensorSpec
from quadbench.quad import passes
from quadbench.quad.calibration import observe_ranges
from quadbench.quad.components import TextEncoderGraph, VaeDecoderGraph, VaeEncoderGraph, with_plain_attention
from quadbench.quad.encodings import Encoding, Range
from quadbench.quad.export import export_graph
from quadbench.quad.foundation import Foundation, time_features
from quadbench.quad.lora import UnetGraph
from quadbench.quad.mixed import EncodingNoise, encoding_noise, least_noisy
from quadbench.quad.qdq import activation_encodings, encoding_sources, quantize_graph
from quadbench.quad.runner import Feed
from quadbench.quad.sensitivity import spread

NOISE_SAMPLES = 8  # of the calibration feeds, spread evenly


def export_component(foundation: Foundation, component: Component) -> onnx.ModelProto:
    """The float graph of a component other than the U-Net."""
    size, latent = foundation.image_size, (1, foundation.latent_channels, foundation.latent_size, foundation.latent_size)
    match component:
        case Component.TEXT_ENCODER:
            ids = torch.tensor([foundation.tokenize("")], dtype=torch.int32)
            names, output = ["input_ids"], "encoder_hidden_states"
            model = export_graph(TextEncoderGraph(foundation.text_encoder), (ids,), input_names=names, output_name=output)
            passes.clamp_mask_constants(model)
        case Component.VAE_ENCODER:
            image = torch.zeros(1, 3, size, size)
            model = export_graph(VaeEncoderGraph(foundation.vae), (image,), input_names=["image"], output_name="latent")
        case Component.VAE_DECODER:
            model = export_graph(
                VaeDecoderGraph(foundation.vae), (torch.zeros(latent),), input_names=["latent"], output_name="image"
            )
        case Component.UNET:
            raise ValueError("the U-Net is exported by export_unet")
    passes.decompose_group_norm(model)
    return model


def export_unet(foundation: Foundation, unet: torch.nn.Module, ranks: Mapping[str, int]) -> onnx.ModelProto:
    """The float U-Net with LoRA inputs at the given sites; no sites gives the plain graph that a merged adapter needs."""
    module = UnetGraph(with_plain_attention(unet), ranks).eval()
    shape = (1, foundation.latent_channels, foundation.latent_size, foundation.latent_size)
    text = foundation.text_encoder(torch.tensor([foundation.tokenize("")]))[0]
    lora = [torch.zeros(module.lora_shapes[name]) for name in module.lora_names]
    arguments = (torch.zeros(shape), time_features(foundation, [0.0]), text, lora)
    names = ["sample", "time_features", "encoder_hidden_states", *module.lora_names]
    model = export_graph(module, arguments, input_names=names, output_name="eps")
    passes.decompose_group_norm(model)
    return model


def lora_shapes(model: onnx.ModelProto, prefix: str = "lora.") -> dict[str, tuple[int, ...]]:
    """The LoRA inputs of a U-Net graph, in the graph's order."""
    return {spec.name: spec.shape for spec in specs(model.graph.input) if spec.name.startswith(prefix)}


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A QDQ graph and the encodings that it was written with; `noise` is what chose their bits, where something did."""

    model: onnx.ModelProto
    activations: dict[str, Encoding]
    noise: tuple[EncodingNoise, ...]


def quantized(
    model: onnx.ModelProto, feeds: Sequence[Feed], *, int8_percent: int = 0, lora: Mapping[str, Encoding] | None = None
) -> Quantized:
    """Calibrate a float graph on feeds and write its QDQ form, with 8 bits for `int8_percent` % of its activation encodings.

    All or none of them need no measuring; between, it is done on NOISE_SAMPLES of the feeds.
    """
    ranges = observe_ranges(model, feeds)
    noise: tuple[EncodingNoise, ...] = ()
    if 0 < int8_percent < 100:
        few = [feeds[i] for i in spread(len(feeds), NOISE_SAMPLES)]
        noise = encoding_noise(model, _narrow_encodings(model, ranges, lora or {}), few)
    encodings = activation_encodings(
        model,
        ranges,
        dtype="uint8" if int8_percent == 100 else "uint16",
        exceptions=dict.fromkeys(least_noisy(noise, int8_percent), "uint8"),
        lora=lora,
    )
    return Quantized(model=quantize_graph(model, encodings, lora), activations=encodings, noise=noise)


def _narrow_encodings(model: onnx.ModelProto, ranges: Mapping[str, Range], lora: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """What every activation encoding would be in 8 bits, by source."""
    encodings = activation_encodings(model, ranges, dtype="uint8", lora=lora)
    return {
        name: encodings[name] for name, source in encoding_sources(model, ranges).items() if name == source and name not in lora
    }


def specs(values: Iterable[onnx.ValueInfoProto], lora: Mapping[str, Encoding] | None = None) -> tuple[TensorSpec, ...]:
    """Graph inputs or outputs as data."""
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
