"""Float graphs: exporting a foundation model's modules to ONNX. docs/formats.md specifies the graphs' inputs and outputs."""

import copy
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import nn

from quadbench.artifacts import Component, TensorSpec
from quadbench.lint.rules import NATIVE_16_BIT_OPSET
from quadbench.quad.families.family import TextEncoder
from quadbench.quad.model.foundation import Foundation, embedded_conditions
from quadbench.quad.model.initializers import INLINE_LIMIT_BYTES, save_with_file
from quadbench.quad.model.lora import UnetGraph
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.passes import passes_of

log = logging.getLogger(__name__)


class PlainAttention:
    """A diffusers attention processor that exports to MatMul and Softmax nodes. Inputs: (B, T, D), or (B, D, h, w) in the VAE."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        residual, spatial = hidden_states, hidden_states.shape[2:]
        is_image = hidden_states.ndim == 4
        if is_image:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h*w, D)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        heads = attn.heads
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, T, D) -> (B, heads, T, d)
        scores = (q @ k.transpose(-1, -2)) * attn.scale  # (B, heads, T, T')
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)  # (B, heads, T, d) -> (B, T, D)
        out = attn.to_out[0](mixed)
        if is_image:
            out = out.transpose(1, 2).unflatten(2, spatial)  # (B, h*w, D) -> (B, D, h, w)
        out = out + residual if attn.residual_connection else out
        return out / attn.rescale_output_factor if attn.rescale_output_factor != 1 else out


class TextEncoderGraph(nn.Module):
    """A family's text encoders as one module for export: from the inputs that `inputs` names, int32 (1, T), to the conditions
    that `outputs` names: hidden states (1, T, D), and pooled ones (1, D).
    """

    def __init__(self, encoders: Sequence[TextEncoder], modules: Sequence[nn.Module]) -> None:
        super().__init__()
        for encoder, module in zip(encoders, modules, strict=True):
            self.add_module(encoder.part, module)
        self._encoders = tuple(encoders)
        pooled = [encoder.pooled for encoder in encoders if encoder.pooled]
        self.inputs = tuple(name for one in encoders for name in (one.tokens, *([one.pooled.end] if one.pooled else [])))
        self.outputs = (*dict.fromkeys(encoder.output for encoder in encoders), *(one.output for one in pooled))

    def forward(self, *token_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.inputs, token_ids, strict=True))
        states: dict[str, list[torch.Tensor]] = {name: [] for name in self.outputs}
        for encoder in self._encoders:
            module = self.get_submodule(encoder.part)
            if encoder.layer is None:
                states[encoder.output].append(module(given[encoder.tokens], return_dict=False)[0])
                continue
            model = module.text_model if encoder.pooled else module
            encoded = model(given[encoder.tokens], output_hidden_states=True)
            states[encoder.output].append(encoded.hidden_states[encoder.layer])
            if encoder.pooled:
                states[encoder.pooled.output].append(_pooled(module, encoded.last_hidden_state, given[encoder.pooled.end]))
        return tuple(own[0] if len(own) == 1 else torch.cat(own, dim=-1) for own in states.values())


def _pooled(encoder: nn.Module, states: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return a text encoder's projected state (1, D) at the token where `end` (1, T) is 1, of normalized `states` (1, T, D).

    Looking 0 and 1 up in a table makes floats of integers with the same operator as token embeddings.
    """
    chosen = nn.functional.embedding(end, torch.tensor([[0.0], [1.0]])).transpose(1, 2)  # (1, 1, T)
    projected: torch.Tensor = encoder.text_projection(chosen @ states)
    return projected.flatten(1)


class VaeEncoderGraph(nn.Module):
    """The VAE encoder module: from an image (1, 3, H, W) in [-1, 1] to the scaled posterior mean, a latent (1, 4, h, w)."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = with_plain_attention(vae)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        moments = self.vae.quant_conv(self.vae.encoder(image))
        mean, _ = moments.chunk(2, dim=1)
        return as_latent(self.vae, mean)


class VaeDecoderGraph(nn.Module):
    """The VAE decoder as a module for export: from a latent (1, 4, h, w) to an unclipped image (1, 3, H, W), about [-1, 1]."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = with_plain_attention(vae)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return self.vae.decoder(self.vae.post_quant_conv(of_latent(self.vae, latent)))


def text_encoder_graph(foundation: Foundation) -> TextEncoderGraph:
    """Return a model's text encoders as one module."""
    encoders = foundation.family.encoders
    return TextEncoderGraph(encoders, [foundation.part(encoder.part) for encoder in encoders])


def as_latent(vae: nn.Module, encoded: torch.Tensor) -> torch.Tensor:
    """Return what a VAE encoded as a latent (1, 4, h, w), in the scale that samplers and the denoiser take."""
    return encoded * vae.config.scaling_factor


def of_latent(vae: nn.Module, latent: torch.Tensor) -> torch.Tensor:
    """Return a latent (1, 4, h, w) in the scale that a VAE decodes."""
    return latent / vae.config.scaling_factor


def with_plain_attention(model: nn.Module) -> nn.Module:
    """Return a copy of a diffusers model whose attention exports to MatMul and Softmax nodes. The copy shares the weights."""
    plain = copy_of_modules(model)
    plain.set_attn_processor(PlainAttention())
    return plain


def copy_of_modules(model: nn.Module) -> nn.Module:
    """Return a copy of a model with the same weight tensors. The copy's modules may be replaced, but no weight may be changed."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def export_graph(
    module: nn.Module, arguments: Sequence[object], *, input_names: Sequence[str], output_names: Sequence[str], scratch: Path
) -> onnx.ModelProto:
    """Trace a module with static shapes and return its ONNX graph. Each element of a list argument becomes its own input. Weights
    of more than INLINE_LIMIT_BYTES go to a file in the folder `scratch`, which must outlive the graph.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecations
        program = torch.onnx.export(
            module.eval(), tuple(arguments), dynamo=True, opset_version=NATIVE_16_BIT_OPSET, optimize=False, verbose=False
        )
        assert program is not None
        traced = list(program.model.graph.initializers.values())
        program.optimize()
    for value, name in zip(program.model.graph.inputs, input_names, strict=True):
        value.name = name
    for value, name in zip(program.model.graph.outputs, output_names, strict=True):
        value.name = name
    is_large = sum(tensor.nbytes for tensor in module.state_dict().values()) > INLINE_LIMIT_BYTES
    model = save_with_file(program, scratch) if is_large else program.model_proto
    for value in (*traced, *program.model.graph.initializers.values()):
        value.const_value = None  # frees the weights, as the exporter's optimizer keeps its last graph in a global
    # Remove the exporter's notes, whose stack traces would make equal graphs differ, and number the nodes.
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if part.HasField("doc_string"):
            part.ClearField("doc_string")
        del part.metadata_props[:]
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
    if not is_large:
        onnx.checker.check_model(model)
    return model


def export_component(foundation: Foundation, component: Component, scratch: Path) -> onnx.ModelProto:
    """Return a text encoder, VAE encoder or VAE decoder as ONNX to quantize. Weights over 256 MiB go to files in `scratch`."""
    module: nn.Module
    arguments: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    match component:
        case Component.TEXT_ENCODER:
            module = text_encoder_graph(foundation)
            arguments = tuple(torch.tensor([ids], dtype=torch.int32) for ids in foundation.tokenize("").values())
            names, outputs = module.inputs, module.outputs
        case Component.VAE_ENCODER:
            module = VaeEncoderGraph(foundation.vae)
            arguments = (torch.zeros(1, 3, foundation.sizes.image, foundation.sizes.image),)
            names, outputs = ("image",), ("latent",)
        case Component.VAE_DECODER:
            module, arguments = VaeDecoderGraph(foundation.vae), (torch.zeros(foundation.latent_shape),)
            names, outputs = ("latent",), ("image",)
        case Component.UNET:
            raise ValueError("the U-Net is exported by export_unet")
    model = export_graph(module, arguments, input_names=names, output_names=outputs, scratch=scratch)
    for rewrite in passes_of(component):
        rewrite(model)
    return model


def export_unet(foundation: Foundation, unet: torch.nn.Module, ranks: Mapping[str, int], scratch: Path) -> onnx.ModelProto:
    """Return the U-Net's ONNX graph, rewritten for quantization. `ranks` maps layers to LoRA ranks; if empty, the graph has no
    LoRA inputs, as for a U-Net with a merged adapter. Weights of more than INLINE_LIMIT_BYTES go to a file below `scratch`.
    """
    family = foundation.family
    module = UnetGraph(with_plain_attention(unet), family.conditions, ranks).eval()
    encoded = {name: torch.zeros(shape) for name, shape in foundation.prompt_shapes.items()}
    values = embedded_conditions(foundation, [0.0]) | encoded
    lora = [torch.zeros(module.lora_shapes[name]) for name in module.lora_names]
    arguments = (torch.zeros(foundation.latent_shape), [values[condition.name] for condition in family.conditions], lora)
    names = ["sample", *(condition.name for condition in family.conditions), *module.lora_names]
    model = export_graph(module, arguments, input_names=names, output_names=["eps"], scratch=scratch)
    for rewrite in passes_of(Component.UNET):
        rewrite(model)
    return model


def specs(values: Iterable[onnx.ValueInfoProto], lora: Mapping[str, Encoding] | None = None) -> tuple[TensorSpec, ...]:
    """Return one TensorSpec per graph input or output. `scale` is taken from `lora` (tensor name to Encoding), or is None."""
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
