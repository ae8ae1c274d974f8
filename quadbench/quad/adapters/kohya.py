"""Kohya: a file of kohya's training scripts, or of LyCORIS' LoCon -> a reading by flat site names; flat names -> sites."""

import re
from collections.abc import Iterable, Mapping
from types import SimpleNamespace

import torch
from diffusers.utils import convert_unet_state_dict_to_peft

from quadbench.quad.adapters.reading import Key, LoraPart, Reading, read_pairs

PREFIX = "lora_unet_"
PREFIXES = (PREFIX, "lora_te_", "lora_te1_", "lora_te2_")
_KEY = re.compile(rf"^(?P<prefix>{'|'.join(PREFIXES)})(?P<flat>[^.]+)\.(?P<part>lora_down\.weight|lora_up\.weight|alpha)$")
_PARTS = {"lora_down.weight": LoraPart.DOWN, "lora_up.weight": LoraPart.UP, "alpha": LoraPart.ALPHA}
_UPSAMPLER = re.compile(r"(?P<block>output_blocks_(?P<index>\d+))_[12]_conv")
_LDM = re.compile(r"^(input_blocks|middle_block|output_blocks|time_embed_|out_2)")


def read_kohya(tensors: Mapping[str, torch.Tensor]) -> Reading:
    """Return the pairs by flat name, as `mid_block_attentions_0_proj_in`; without an alpha the scale is 1, as in kohya's."""
    return read_pairs(tensors, _unet_key, _scale)


def read_text_encoder(tensors: Mapping[str, torch.Tensor]) -> Reading:
    """Return the pairs of the text encoder by flat name, with their prefix."""
    return read_pairs(tensors, _text_encoder_key, _scale)


def _unet_key(name: str) -> Key | None:
    match = _KEY.match(name)
    return Key(site=match["flat"], part=_PARTS[match["part"]]) if match and match["prefix"] == PREFIX else None


def _text_encoder_key(name: str) -> Key | None:
    match = _KEY.match(name)
    return Key(site=match["prefix"] + match["flat"], part=_PARTS[match["part"]]) if match and match["prefix"] != PREFIX else None


def _scale(_site: str, rank: int, alpha: float | None) -> float:
    return 1.0 if alpha is None else alpha / rank


def flat_name(site: str) -> str:
    """Return a site's name as it stands in keys, after the prefix."""
    return site.replace(".", "_")


def flat_sites(sites: Iterable[str]) -> dict[str, str]:
    """Map flat names to sites. No two sites of a diffusers U-Net share one."""
    return {flat_name(site): site for site in sites}


def is_ldm(flat: str) -> bool:
    """Say whether the name is one of the original Stable Diffusion code, which numbers blocks differently."""
    return _LDM.match(flat) is not None


def as_diffusers_reads(flat: str) -> str:
    """Return the name under which diffusers' conversion knows a site of the original code.

    Where a block of the upper half has no attention, its upsampler is part 1 of the block and not part 2, which the conversion
    does not know; attention has no part `conv`.
    """
    match = _UPSAMPLER.fullmatch(flat)
    return f"{match['block']}_2_conv" if match else flat


def site_of_ldm(flat: str, layers_per_block: int) -> str | None:
    """Return the site, by diffusers' own conversion; one name at a time, as it confuses input_blocks_1 with input_blocks_10."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin  # here, because it loads all of transformers' image code

    upsampler = _UPSAMPLER.fullmatch(flat)
    if upsampler and (int(upsampler["index"]) + 1) % (layers_per_block + 1):
        return None  # only the last block of a stage has one
    pair = {f"{PREFIX}{as_diffusers_reads(flat)}.lora_{side}.weight": torch.zeros(1) for side in ("down", "up")}
    config = SimpleNamespace(layers_per_block=layers_per_block)
    try:
        converted, _ = StableDiffusionLoraLoaderMixin.lora_state_dict(pair, unet_config=config)
    except (ValueError, KeyError, IndexError):  # raised for a name that it cannot place
        return None
    first = next(iter(convert_unet_state_dict_to_peft(converted)))
    return first.removeprefix("unet.").removesuffix(".lora_A.weight")
