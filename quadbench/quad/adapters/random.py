"""Random adapter: rank, kinds of sites and a seed -> a LoRA for a U-Net, as large as a trained one and of no other use."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from quadbench.quad.adapters.adapter import Adapter, LoraPair
from quadbench.quad.model.lora import input_shapes
from quadbench.recipe import SiteKind

SITE_ENDINGS: dict[SiteKind, tuple[str, ...]] = {
    "attention": (".to_q", ".to_k", ".to_v", ".to_out.0"),
    "feed-forward": (".ff.net.0.proj", ".ff.net.2"),
    "projection": (".proj_in", ".proj_out"),
    "convolution": (".conv1", ".conv2", ".conv_shortcut"),
}
STRENGTH = 0.1  # of up*down beside torch's initial weights, where both are random: an effect that rounding must not drown


def random_adapter(name: str, unet: nn.Module, *, rank: int, kinds: Sequence[SiteKind], seed: int) -> Adapter:
    """Draw an adapter for the sites of these kinds in `unet`, of which only names and shapes matter.

    `down` is as PEFT initializes it, uniform within 1 / sqrt(in), and `up` normal with a deviation of STRENGTH / sqrt(rank), so
    that a weight of up*down has a tenth of the deviation of one in the U-Net. The same seed gives the same adapter.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for site, module in _sites(unet, kinds):
        down, up = input_shapes(site, module, rank).values()
        bound = math.prod(down[1:]) ** -0.5
        pairs[site] = LoraPair(
            down=(torch.rand(down, generator=generator) * 2 - 1) * bound,
            up=torch.randn(up, generator=generator) * (STRENGTH / rank**0.5),
        )
    return Adapter(name=name, pairs=pairs)


def _sites(unet: nn.Module, kinds: Sequence[SiteKind]) -> Iterator[tuple[str, nn.Module]]:
    endings = tuple(ending for kind in kinds for ending in SITE_ENDINGS[kind])
    yield from ((site, module) for site, module in sorted(unet.named_modules()) if site.endswith(endings))
