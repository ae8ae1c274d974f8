"""PEFT: adapter_config.json and the tensors beside it -> a reading."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from quadbench.errors import AdapterError
from quadbench.quad.adapters.lora_config import MOST_BYTES, AdapterConfig, adapter_config, follow
from quadbench.quad.adapters.reading import Key, LoraPart, Reading, read_pairs
from quadbench.quad.layouts import PEFT_CONFIG, PEFT_TENSORS
from quadbench.spec.document import describe

_KEY = re.compile(r"^base_model\.model\.(?P<site>.+)\.lora_(?P<side>[AB])(\.default)?\.weight$")
_PARTS = {"A": LoraPart.DOWN, "B": LoraPart.UP}


def read_config(name: str, folder: Path) -> AdapterConfig:
    """Read the folder's adapter_config.json.

    Raises:
        AdapterError: the file is missing, too large or not JSON, has values that no LoraConfig has, or is of another kind of
            adapter.
    """
    path = folder / PEFT_CONFIG
    if not path.is_file():
        hint = f"a PEFT folder holds {PEFT_CONFIG} and {PEFT_TENSORS}"
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=hint)
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise AdapterError(f"adapter '{name}': '{path}' has more than {MOST_BYTES} bytes, which is no LoraConfig")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise AdapterError(f"adapter '{name}': '{path}' holds {describe(values)}; expected keys and values")
    if (kind := values.get("peft_type")) != "LORA":
        shown = kind[:64] if isinstance(kind, str) else describe(kind)
        raise AdapterError(f"adapter '{name}' is a {shown} adapter; expected LORA", hint="only LoRA has graph inputs")
    try:
        return adapter_config(values)
    except ValueError as error:
        raise AdapterError(f"adapter '{name}': '{path}': {error}", hint="let PEFT write it: save_pretrained(folder)") from error


def read_peft(tensors: Mapping[str, torch.Tensor], config: AdapterConfig) -> Reading:
    """Return the pairs by site, scaled as the configuration says."""
    return follow(config, read_pairs(tensors, _key_of, lambda site, rank, _alpha: config.scale(site, rank)))


def _key_of(name: str) -> Key | None:
    match = _KEY.match(name)
    return Key(site=match["site"], part=_PARTS[match["side"]]) if match else None
