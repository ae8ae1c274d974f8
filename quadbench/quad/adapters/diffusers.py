"""Diffusers: a file of save_lora_weights, of today or of the attention processors' days, or of save_lora_adapter -> a reading."""

import json
import re
from collections.abc import Iterable, Mapping

import torch
from diffusers.utils import convert_unet_state_dict_to_peft

from quadbench.quad.adapters.lora_config import MOST_BYTES, AdapterConfig, adapter_config, follow
from quadbench.quad.adapters.reading import AdapterProblem, Key, KeyOf, LoraPart, Reading, read_pairs

PREFIX = "unet."
PREFIXES = (PREFIX, "text_encoder.")
UNET_ROOTS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in.", "conv_out.", "time_embedding.")
METADATA = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY
_KEY = re.compile(r"^(?P<site>.+?)(\.lora_(?P<side>[AB])(\.default)?\.weight|\.alpha)$")
_TEXT_ENCODER_KEY = re.compile(
    r"^(?P<prefix>text_encoder(?:_2)?\.)(?P<site>.+?)\."
    r"(?:(?:lora_(?P<side>[AB])(?:\.default)?|lora(?:_linear_layer)?\.(?P<old>down|up))\.weight|alpha)$"
)
_PARTS = {"A": LoraPart.DOWN, "B": LoraPart.UP, None: LoraPart.ALPHA}


def prefix_of(names: Iterable[str]) -> str:
    """Return what begins the names of the U-Net's tensors: nothing in what the U-Net alone has saved."""
    return PREFIX if any(name.startswith(PREFIXES) for name in names) else ""


def read_diffusers(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Reading:
    """Return the pairs by site. The scale is that of the file's LoraConfig if it has one, else alpha / r, else 1."""
    prefix = prefix_of(tensors)
    return _read(tensors, metadata, prefix, lambda name: _key_of(name, prefix))


def read_text_encoder(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Reading:
    """Return the pairs of the text encoder by site, scaled alike."""
    return _read(tensors, metadata, "text_encoder.", _text_encoder_key)


def _read(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], prefix: str, key_of: KeyOf) -> Reading:
    try:
        config = _config(metadata.get(METADATA), prefix)
    except (ValueError, RecursionError) as error:
        problem = AdapterProblem(
            message=f"has metadata '{METADATA}' that is no LoraConfig: {error}", hint="save it again with diffusers"
        )
        return Reading(pairs={}, scales={}, problems=(problem,))

    def scale_of(site: str, rank: int, alpha: float | None) -> float:
        if config:
            return config.scale(site, rank)
        return 1.0 if alpha is None else alpha / rank

    reading = read_pairs(tensors, key_of, scale_of)
    return follow(config, reading) if config else reading


def _config(text: str | None, prefix: str) -> AdapterConfig | None:
    """Return a part's LoraConfig, if there is one. The U-Net's keys stand in the file as `unet.r`, `unet.lora_alpha`, ...

    Raises:
        ValueError: the text is too long, no JSON, or has values that no LoraConfig has.
    """
    if text is None:
        return None
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text)} characters, expected at most {MOST_BYTES}")
    configs = json.loads(text)
    if not isinstance(configs, dict):
        raise ValueError("expected keys and values")
    values = {key.removeprefix(prefix): value for key, value in configs.items() if key.startswith(prefix)}
    return adapter_config(values) if values else None


def _key_of(name: str, prefix: str) -> Key | None:
    if not name.startswith(prefix):
        return None
    # diffusers' own renaming: .processor.to_q_lora.down and .to_q.lora.down become .to_q.lora_A
    (renamed,) = convert_unet_state_dict_to_peft({name.removeprefix(prefix): None})
    match = _KEY.match(renamed)
    return Key(site=match["site"], part=_PARTS[match["side"]]) if match else None


def _text_encoder_key(name: str) -> Key | None:
    match = _TEXT_ENCODER_KEY.match(name)
    if match is None:
        return None
    side = match["side"] or {"down": "A", "up": "B"}.get(match["old"])
    return Key(site=match["site"], part=_PARTS[side])
