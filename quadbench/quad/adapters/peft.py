"""PEFT: adapter_config.json and the tensors beside it -> a reading; of LoHa and LoKr what they add to the base's weights."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from quadbench.errors import AdapterError
from quadbench.quad.adapters.lora_config import (
    MOST_BYTES,
    OF_DIFFERENT_ADAPTERS,
    AdapterConfig,
    PeftType,
    adapter_config,
    follow,
    rank_problems,
)
from quadbench.quad.adapters.lycoris import FACTORS, Differences, Method, PartKey, read_differences
from quadbench.quad.adapters.reading import AdapterProblem, Key, LoraPart, Reading, read_pairs
from quadbench.quad.sources import DIFFUSERS_TENSORS, PEFT_CONFIG, PEFT_TENSORS
from quadbench.spec import is_file
from quadbench.spec.document import describe

_KEY = re.compile(r"^base_model\.model\.(?P<site>.+)\.lora_(?P<side>[AB])(\.default)?\.weight$")
_DIFFERENCE_KEY = re.compile(rf"^base_model\.model\.(?P<site>.+)\.(?P<part>{FACTORS})(\.default)?$")
_METHODS = {PeftType.LOHA: Method.LOHA, PeftType.LOKR: Method.LOKR}
_PARTS = {"A": LoraPart.DOWN, "B": LoraPart.UP}


def read_config(name: str, folder: Path) -> AdapterConfig:
    """Read the folder's adapter_config.json.

    Raises:
        AdapterError: the file is missing, too large or not JSON, has values that no LoraConfig has, or is of another kind of
            adapter.
    """
    path = folder / PEFT_CONFIG
    if not is_file(path):
        hint = f"a PEFT folder holds {PEFT_CONFIG} and {PEFT_TENSORS}; one of diffusers {DIFFUSERS_TENSORS}"
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
    if (kind := values.get("peft_type")) not in list(PeftType):
        shown = kind[:64] if isinstance(kind, str) else describe(kind)
        hint = "only LoRA has graph inputs; quadbench adapter convert makes one of LOHA and LOKR"
        raise AdapterError(f"adapter '{name}' is a {shown} adapter; expected LORA", hint=hint)
    try:
        return adapter_config(values, PeftType(kind))
    except ValueError as error:
        raise AdapterError(f"adapter '{name}': '{path}': {error}", hint="let PEFT write it: save_pretrained(folder)") from error


def read_peft(tensors: Mapping[str, torch.Tensor], config: AdapterConfig) -> Reading:
    """Return the pairs by site, scaled as the configuration says."""
    reading = follow(config, read_pairs(tensors, _key_of, lambda site, rank, _alpha: config.scale(site, rank)))
    if not reading.pairs or config.kind is PeftType.LORA:
        return reading
    return replace(reading, problems=(*reading.problems, _of_another_kind("LoRA", config)))


def read_peft_differences(tensors: Mapping[str, torch.Tensor], config: AdapterConfig) -> Differences:
    """Return what LoHa or LoKr adds by site, scaled as the configuration says, also where its factors are whole."""
    read = read_differences(tensors, _difference_key, lambda site, _parts, _rank: config.scale(site, config.rank_at(site)))
    ranks = {site: one.rank for site, one in read.by_site.items() if one.rank is not None}
    others = {one.method for one in read.by_site.values()} - {_METHODS.get(config.kind)}
    mixed = [_of_another_kind(method, config) for method in sorted(others)]
    return replace(read, problems=(*read.problems, *rank_problems(config, ranks), *mixed))


def _of_another_kind(method: str, config: AdapterConfig) -> AdapterProblem:
    message = f"has tensors of {method} where its configuration says {config.kind}"
    return AdapterProblem(message=message, hint=OF_DIFFERENT_ADAPTERS)


def _key_of(name: str) -> Key | None:
    match = _KEY.match(name)
    return Key(site=match["site"], part=_PARTS[match["side"]]) if match else None


def _difference_key(name: str) -> PartKey | None:
    match = _DIFFERENCE_KEY.match(name)
    return PartKey(site=match["site"], part=match["part"]) if match else None
