"""diffusers modules -> a single file under the names of Stable Diffusion's first release, as its authors' code numbers blocks."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

UNET_NAMES = (
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^mid_block\.resnets\.0", "middle_block.0"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.1", "middle_block.2"),
)
RESNET_NAMES = (
    (r"\.norm1\.(?=weight|bias)", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.(?=weight|bias)", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)
VAE_NAMES = (
    (r"conv_norm_out", "norm_out"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block."),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d+)\.resnets\.", r"up.\1.block."),
    (r"up_blocks\.(\d+)\.upsamplers\.0", r"up.\1.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
)


def write_ldm_checkpoint(path: Path, *, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module | None) -> Path:
    """Write one .safetensors file of all three; without a text encoder it is a file that lacks a part."""
    tensors = {f"model.diffusion_model.{ldm_name(k, unet)}": v for k, v in unet.state_dict().items()}
    tensors |= {f"first_stage_model.{_vae_name(k, vae)}": _as_convolution(k, v) for k, v in vae.state_dict().items()}
    for key, tensor in (text_encoder.state_dict() if text_encoder else {}).items():
        tensors[f"cond_stage_model.transformer.text_model.{key}"] = tensor
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def ldm_name(key: str, unet: nn.Module) -> str:
    """Return the name that a weight of the U-Net has in the first release."""
    layers = unet.config.layers_per_block + 1
    down = re.match(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)", key)
    up = re.match(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.+)", key)
    if down:
        block, kind, layer, rest = int(down[1]), down[2], int(down[3]), down[4]
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * layers}.0.{rest.replace('conv.', 'op.')}"
        key = f"input_blocks.{1 + block * layers + layer}.{int(kind == 'attentions')}.{rest}"
    elif up:
        block, kind, layer, rest = int(up[1]), up[2], int(up[3]), up[4]
        if kind == "upsamplers":
            has_attention = "CrossAttn" in unet.config.up_block_types[block]
            return f"output_blocks.{(block + 1) * layers - 1}.{1 + has_attention}.{rest}"
        key = f"output_blocks.{block * layers + layer}.{int(kind == 'attentions')}.{rest}"
    is_resnet = "transformer_blocks" not in key
    return _replaced(_replaced(key, UNET_NAMES), RESNET_NAMES if is_resnet else ())


def _vae_name(key: str, vae: nn.Module) -> str:
    last = len(vae.config.up_block_types) - 1
    key = re.sub(r"up_blocks\.(\d+)", lambda match: f"up_blocks.{last - int(match[1])}", key)  # counted from the picture
    return _replaced(key, VAE_NAMES)


def _as_convolution(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Give attention weights the form of the first release, whose attention is of 1x1 convolutions."""
    is_projection = re.search(r"attentions\.0\.to_.*weight", key)
    return tensor[:, :, None, None] if is_projection else tensor


def _replaced(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for old, new in names:
        key = re.sub(old, new, key)
    return key
