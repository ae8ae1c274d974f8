"""Components: a foundation model's modules -> the modules of docs/formats.md, "Graph inputs and outputs"."""

import copy

import torch
from torch import nn


class PlainAttention:
    """An attention processor of MatMul, Softmax and MatMul, which exports to those nodes and no others.

    It takes what diffusers' Attention gives a processor: (B, T, D), or (B, D, h, w) in the VAE.
    """

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
    """The text encoder: input_ids int32 (1, T) -> encoder_hidden_states (1, T, D)."""

    def __init__(self, text_encoder: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.text_encoder(input_ids, return_dict=False)[0]


class VaeEncoderGraph(nn.Module):
    """The VAE's encoder: image (1, 3, H, W) in [-1, 1] -> latent (1, 4, h, w), the posterior's mean times the scaling factor."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = with_plain_attention(vae)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        moments = self.vae.quant_conv(self.vae.encoder(image))
        mean, _ = moments.chunk(2, dim=1)
        return mean * self.vae.config.scaling_factor


class VaeDecoderGraph(nn.Module):
    """The VAE's decoder: latent (1, 4, h, w) -> image (1, 3, H, W), about [-1, 1], not clipped."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = with_plain_attention(vae)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        return self.vae.decoder(self.vae.post_quant_conv(latent / self.vae.config.scaling_factor))


def with_plain_attention(model: nn.Module) -> nn.Module:
    """Return a copy of a diffusers model whose attention exports to plain nodes. The weights are shared."""
    plain = copy_of_modules(model)
    plain.set_attn_processor(PlainAttention())
    return plain


def copy_of_modules(model: nn.Module) -> nn.Module:
    """Return a copy of the modules around the same weights: modules may be exchanged in it, weights must not be written to."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
