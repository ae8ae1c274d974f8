"""Adapters: a PEFT folder -> its low-rank pairs by site, with all of its scale folded into `up`."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from quadbench.errors import AdapterError
from quadbench.quad.lora import GraphInputs, input_names, input_shapes

_KEY = re.compile(r"^base_model\.model\.(?P<site>.+)\.lora_(?P<side>[AB])\.weight$")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The low-rank pair of one site: `down` (r, in[, k, k]) and `up` (out, r[, 1, 1]), float32."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA by site; `up` carries the whole scale, so that applying it is `W x + up (down x)`."""

    name: str
    folder: Path
    pairs: dict[str, Pair]

    @property
    def rank(self) -> int:
        """The largest rank of any site."""
        return max(pair.rank for pair in self.pairs.values())


def load_adapter(name: str, folder: Path) -> Adapter:
    """Read `adapter_config.json` and `adapter_model.safetensors` as PEFT saves them.

    Raises:
        AdapterError: a file is missing or damaged, the adapter is of a kind other than plain LoRA, or holds NaN or Inf.
    """
    config, tensors = _read_config(name, folder), _read_tensors(name, folder)
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if not match:
            raise AdapterError(
                f"adapter '{name}' has a tensor '{key}'; expected only <site>.lora_A.weight and <site>.lora_B.weight"
            )
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"adapter '{name}' holds NaN or Inf in '{key}'")
        sides.setdefault(match["site"], {})[match["side"]] = tensor.float()
    return Adapter(name=name, folder=folder, pairs={site: _pair(name, site, sides[site], config) for site in sorted(sides)})


def _read_config(name: str, folder: Path) -> dict[str, object]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise AdapterError(
            f"adapter '{name}': '{path}' does not exist",
            hint="a PEFT folder holds adapter_config.json and adapter_model.safetensors",
        )
    try:
        config: dict[str, object] = json.loads(path.read_text())
    except ValueError as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not JSON: {error}") from error
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"adapter '{name}' is a {config.get('peft_type')} adapter; expected LORA", hint="only LoRA has graph inputs"
        )
    for feature in ("use_dora", "lora_bias"):
        if config.get(feature):
            raise AdapterError(f"adapter '{name}' uses {feature}, which has no graph inputs", hint="train it as plain LoRA")
    return config


def _read_tensors(name: str, folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        pickles = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))
        hint = f"'{pickles[0].name}' is a pickle, which is never opened; save with safe_serialization=True" if pickles else None
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=hint)
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not a whole safetensors file: {error}") from error
    if not tensors:
        raise AdapterError(f"adapter '{name}': '{path}' holds no tensors")
    return tensors


def _pair(name: str, site: str, sides: Mapping[str, torch.Tensor], config: Mapping[str, object]) -> Pair:
    if set(sides) != {"A", "B"}:
        raise AdapterError(f"adapter '{name}' has only lora_{next(iter(sides))} at site '{site}'; expected lora_A and lora_B")
    down, up = sides["A"], sides["B"]
    rank = down.shape[0]
    if up.shape[1] != rank:
        raise AdapterError(f"adapter '{name}' at site '{site}': lora_A has rank {rank}, lora_B has rank {up.shape[1]}")
    return Pair(down=down, up=up * _scale(site, rank, config))


def _scale(site: str, rank: int, config: Mapping[str, object]) -> float:
    """alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023); alpha_pattern wins over lora_alpha, as in PEFT."""
    alpha = float(config["lora_alpha"])  # type: ignore[arg-type]
    for pattern, value in dict(config.get("alpha_pattern") or {}).items():  # type: ignore[call-overload]
        if re.match(rf"(.*\.)?({pattern})$", site):
            alpha = float(value)
            break
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def check_fit(adapter: Adapter, unet: nn.Module) -> None:
    """Refuse an adapter with a site that the U-Net lacks or whose shapes differ from the module's.

    Raises:
        AdapterError: names the first ten sites that do not fit.
    """
    modules = dict(unet.named_modules())
    absent = [site for site in adapter.pairs if site not in modules]
    if absent:
        shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        fitting = f"{len(adapter.pairs) - len(absent)} of its {len(adapter.pairs)} sites"
        raise AdapterError(
            f"adapter '{adapter.name}' fits {fitting}; the U-Net has no {shown}",
            hint="it was trained for another foundation model",
        )
    for site, pair in adapter.pairs.items():
        expected = tuple(input_shapes(site, modules[site], pair.rank).values())
        found = (tuple(pair.down.shape), tuple(pair.up.shape))
        if found != expected:
            raise AdapterError(
                f"adapter '{adapter.name}' at site '{site}' has shapes {found[0]} and {found[1]}; expected {expected}"
            )


def shared_ranks(adapters: Iterable[Adapter]) -> dict[str, int]:
    """The rank of every site in the shared graph: the largest among the adapters."""
    ranks: dict[str, int] = {}
    for adapter in adapters:
        for site, pair in adapter.pairs.items():
            ranks[site] = max(ranks.get(site, 0), pair.rank)
    return dict(sorted(ranks.items()))


def graph_tensors(adapter: Adapter | None, shapes: Mapping[str, tuple[int, ...]]) -> GraphInputs:
    """The LoRA inputs for an adapter: zero-padded to the graph's ranks, zeros at sites that it lacks; None is no adapter."""
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for site, pair in (adapter.pairs if adapter else {}).items():
        down, up = input_names(site)
        tensors[down][: pair.rank] = pair.down
        tensors[up][:, : pair.rank] = pair.up
    return tensors


def merge(adapter: Adapter, unet: nn.Module) -> None:
    """Add an adapter to the U-Net's own weights, in place."""
    for site, pair in adapter.pairs.items():
        weight = unet.get_submodule(site).weight
        delta = pair.up.flatten(1) @ pair.down.flatten(1)  # (out, r) @ (r, in*k*k) -> (out, in*k*k)
        weight.data += delta.view_as(weight)
