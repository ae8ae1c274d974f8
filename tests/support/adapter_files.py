"""Adapters with known weights, written in the formats that others save them in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

from quadbench.quad.adapters.adapter import Adapter
from quadbench.quad.adapters.loading import load_adapter, sites_of_unet

ALL_KINDS = ("to_q", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv")
LDM_NAMES = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks_1_1_transformer_blocks_0_attn1_to_q",
    "mid_block.attentions.0.proj_in": "middle_block_1_proj_in",
    "mid_block.resnets.1.conv1": "middle_block_2_in_layers_2",
    "up_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj": "output_blocks_3_1_transformer_blocks_0_ff_net_0_proj",
}


@dataclass(frozen=True, kw_only=True)
class Known:
    """The pair and the alpha of one site; None is a file without an alpha."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float | None

    @property
    def delta(self) -> torch.Tensor:
        """Return what the pair adds to the flattened weight, up*down with its scale."""
        rank = self.down.shape[0]
        return (self.up.flatten(1) @ self.down.flatten(1)) * ((rank if self.alpha is None else self.alpha) / rank)


def draw_pairs(
    unet: UNet2DConditionModel, kinds: Iterable[str] = ALL_KINDS, *, alphas: Iterable[float | None] = (2.0, None, 5.0)
) -> dict[str, Known]:
    """Draw pairs of ranks 2, 3 and 4 at every site whose name ends in one of `kinds`; the alphas come in turn."""
    generator, known, cycle = torch.Generator().manual_seed(3), {}, list(alphas)
    for site, module in unet.named_modules():
        if not site.endswith(tuple(kinds)) or not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        rank = 2 + len(known) // 2 % 3
        known[site] = Known(
            down=torch.randn(rank, *module.weight.shape[1:], generator=generator) * 0.2,
            up=torch.randn(module.weight.shape[0], rank, *(1,) * (module.weight.ndim - 2), generator=generator) * 0.2,
            alpha=cycle[len(known) % len(cycle)],
        )
    return known


def kohya_name(site: str) -> str:
    return "lora_unet_" + site.replace(".", "_")


def kohya_tensors(known: Mapping[str, Known], *, names: Mapping[str, str] | None = None) -> dict[str, torch.Tensor]:
    """Return the pairs as kohya's scripts save them; `names` gives sites other names than the usual ones."""
    tensors = {}
    for site, pair in known.items():
        name = names[site] if names else kohya_name(site)
        tensors |= {f"{name}.lora_down.weight": pair.down, f"{name}.lora_up.weight": pair.up}
        if pair.alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(pair.alpha)
    return tensors


def write_kohya(path: Path, known: Mapping[str, Known]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(kohya_tensors(known), path)
    return path


def load(path: Path, unet: UNet2DConditionModel) -> Adapter:
    """Read a file, or a folder of PEFT's, as quadbench does, as the adapter `style`."""
    return load_adapter("style", path, sites_of_unet(unet))
