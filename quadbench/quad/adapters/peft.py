"""PEFT: adapter_config.json and the tensors beside it -> a reading."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quadbench.errors import AdapterError
from quadbench.quad.adapters.reading import AdapterProblem, Key, LoraPart, Reading, read_pairs

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"^base_model\.model\.(?P<site>.+)\.lora_(?P<side>[AB])\.weight$")
_PARTS = {"A": LoraPart.DOWN, "B": LoraPart.UP}
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to initialize a LoRA that subtract it from the base weights, which are then no longer the foundation model's."""


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """Read the folder's adapter_config.json.

    Raises:
        AdapterError: the file is missing or not JSON, or the adapter is of another kind than LoRA.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=f"a PEFT folder holds {CONFIG} and {TENSORS}")
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not JSON: {error}") from error
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"adapter '{name}' is a {config.get('peft_type')} adapter; expected LORA", hint="only LoRA has graph inputs"
        )
    return config


def read_peft(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Reading:
    """Return the pairs by site, scaled as the configuration says."""
    reading = read_pairs(tensors, _key_of, lambda site, rank, _alpha: config_scale(config, site, rank))
    return Reading(pairs=reading.pairs, scales=reading.scales, problems=(*config_problems(config), *reading.problems))


def config_scale(config: Mapping[str, Any], site: str, rank: int) -> float:
    """Return alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023); alpha_pattern wins over lora_alpha, as in PEFT."""
    alpha = float(config["lora_alpha"])
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", site):
            alpha = float(value)
            break
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def config_problems(config: Mapping[str, Any]) -> list[AdapterProblem]:
    """List what a LoraConfig asks for and a graph with LoRA inputs cannot do."""
    problems = [
        AdapterProblem(message=f"uses {feature}, which has no graph inputs", hint="train it as plain LoRA")
        for feature in ("use_dora", "lora_bias")
        if config.get(feature)
    ]
    initialized = config.get("init_lora_weights")
    if isinstance(initialized, str) and initialized.startswith(_CHANGE_THE_BASE):
        hint = (
            "save it with save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes it a LoRA of the base"
        )
        problems.append(
            AdapterProblem(message=f"was initialized by {initialized}, which changes the base weights too", hint=hint)
        )
    return problems


def _key_of(name: str) -> Key | None:
    match = _KEY.match(name)
    return Key(site=match["site"], part=_PARTS[match["side"]]) if match else None
