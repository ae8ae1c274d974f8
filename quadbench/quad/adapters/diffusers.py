"""Diffusers: a file of save_lora_weights, of today or of the attention processors' days -> a reading."""

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.utils import convert_unet_state_dict_to_peft

from quadbench.quad.adapters.peft import config_problems, config_scale
from quadbench.quad.adapters.reading import AdapterProblem, Key, LoraPart, Reading, read_pairs

PREFIX = "unet."
METADATA = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY
_KEY = re.compile(r"^(?P<site>.+?)(\.lora_(?P<side>[AB])\.weight|\.alpha)$")
_PARTS = {"A": LoraPart.DOWN, "B": LoraPart.UP, None: LoraPart.ALPHA}


def read_diffusers(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Reading:
    """Return the pairs by site. The scale is that of the file's LoraConfig if it has one, else alpha / r, else 1."""
    try:
        config = _unet_config(metadata)
    except ValueError as error:
        problem = AdapterProblem(
            message=f"has metadata '{METADATA}' that is not JSON: {error}", hint="save it again with diffusers"
        )
        return Reading(pairs={}, scales={}, problems=(problem,))

    def scale_of(site: str, rank: int, alpha: float | None) -> float:
        if config:
            return config_scale(config, site, rank)
        return 1.0 if alpha is None else alpha / rank

    reading = read_pairs(tensors, _key_of, scale_of)
    return Reading(pairs=reading.pairs, scales=reading.scales, problems=(*config_problems(config), *reading.problems))


def _unet_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the U-Net's LoraConfig, empty if there is none. Its keys stand in the file as `unet.r`, `unet.lora_alpha`, ..."""
    configs = json.loads(metadata.get(METADATA, "{}"))
    return {key.removeprefix(PREFIX): value for key, value in configs.items() if key.startswith(PREFIX)}


def _key_of(name: str) -> Key | None:
    if not name.startswith(PREFIX):
        return None
    # diffusers' own renaming: .processor.to_q_lora.down and .to_q.lora.down become .to_q.lora_A
    (renamed,) = convert_unet_state_dict_to_peft({name.removeprefix(PREFIX): None})
    match = _KEY.match(renamed)
    return Key(site=match["site"], part=_PARTS[match["side"]]) if match else None
