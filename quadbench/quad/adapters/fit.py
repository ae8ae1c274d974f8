"""Fit: an adapter + the sites of a base -> the adapter under the base's names and in its shapes, or why it does not fit."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from quadbench.artifacts import LORA_PREFIX
from quadbench.errors import AdapterError
from quadbench.quad.adapters.adapter import Adapter, LoraPair
from quadbench.quad.adapters.kohya import flat_sites, is_ldm, site_of_ldm
from quadbench.quad.model.lora import input_names, input_shapes

_NEW_BASE = "list it in the recipe, of which quadbench run RECIPE builds a base that has a place for it"

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The shapes that fit a site: `down` (r, *down) and `up` (out, r, *1s), where r is at most `rank`; None is any."""

    down: Shape
    up: Shape
    rank: int | None = None

    def shapes(self, rank: int) -> tuple[Shape, Shape]:
        """Return the shapes of `down` and `up` of a pair with this rank."""
        return (rank, *self.down), (self.up[0], rank, *self.up[1:])


@dataclass(frozen=True, kw_only=True)
class BaseSites:
    """The sites that adapters are fitted to. `layers_per_block` is known of a U-Net, not of its graph; only LDM names need it."""

    slots: dict[str, Slot]
    layers_per_block: int | None = None


def sites_of_unet(unet: nn.Module) -> BaseSites:
    """Return the sites of a diffusers U-Net: every Linear and ungrouped Conv2d."""
    takes_lora = {
        site: module
        for site, module in unet.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    return BaseSites(
        slots={site: _slot(*input_shapes(site, module, 1).values(), rank=None) for site, module in takes_lora.items()},
        layers_per_block=unet.config.layers_per_block,
    )


def sites_of_graph(shapes: Mapping[str, Shape]) -> BaseSites:
    """Return the sites that a shared graph has LoRA inputs for, with the ranks that it has room for."""
    sites = sorted({name.removeprefix(LORA_PREFIX).rpartition(".")[0] for name in shapes})
    named = {site: [shapes[name] for name in input_names(site)] for site in sites}
    return BaseSites(slots={site: _slot(down, up, rank=down[0]) for site, (down, up) in named.items()})


def _slot(down: Shape, up: Shape, *, rank: int | None) -> Slot:
    return Slot(down=down[1:], up=(up[0], *up[2:]), rank=rank)


def fitted(adapter: Adapter, base: BaseSites) -> Adapter:
    """Return the adapter with the base's site names; a 1x1 convolution and a linear map take each other's tensors.

    Raises:
        AdapterError: the base lacks some of its sites (the first ten are named), one stands under two names, or a site has other
            shapes or too large a rank.
    """
    sites = named_sites(adapter.name, adapter.pairs, base)
    pairs = {site: _in_shape(adapter.name, site, adapter.pairs[name], base.slots[site]) for name, site in sites.items()}
    return replace(adapter, pairs=dict(sorted(pairs.items())))


def named_sites(adapter: str, names: Collection[str], base: BaseSites) -> dict[str, str]:
    """Return the base's site for each name that an adapter's file has.

    Raises:
        AdapterError: the base lacks some of them (the first ten are named), or a site stands under two names.
    """
    flat = flat_sites(base.slots)
    sites = {name: _site(name, base, flat) for name in names}
    absent = [name for name, site in sites.items() if site is None]
    if absent:
        raise _absent(adapter, len(names), absent, base)
    _check_one_name_each(adapter, sites)
    return {name: site for name, site in sites.items() if site}


def _check_one_name_each(adapter: str, sites: Mapping[str, str | None]) -> None:
    """Refuse an adapter with two pairs for one site: loaders differ in whether they add up or one replaces the other."""
    names: dict[str | None, list[str]] = {}
    for name, site in sites.items():
        names.setdefault(site, []).append(name)
    twice = {site: both for site, both in names.items() if len(both) > 1}
    if twice:
        site, both = next(iter(twice.items()))
        more = f", and {len(twice) - 1} more sites so" if len(twice) > 1 else ""
        raise AdapterError(
            f"adapter '{adapter}' has site '{site}' under {len(both)} names: {' and '.join(map(repr, both))}{more}",
            hint="loaders differ in what they do then; keep the pair that belongs to the adapter",
        )


def _site(name: str, base: BaseSites, flat: Mapping[str, str]) -> str | None:
    if name in base.slots:
        return name
    if name in flat:
        return flat[name]
    if is_ldm(name) and base.layers_per_block:
        site = site_of_ldm(name, base.layers_per_block)
        return site if site in base.slots else None
    return None


def _absent(adapter: str, sites: int, absent: list[str], base: BaseSites) -> AdapterError:
    shown = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    fitting = f"{sites - len(absent)} of its {sites} sites"
    hint = "it was trained for another foundation model"
    if base.layers_per_block is None:
        hint += f", or for sites that no adapter of this base has; then {_NEW_BASE}"
    if base.layers_per_block is None and any(map(is_ldm, absent)):
        hint = "its sites have the names of the original Stable Diffusion code, which only a recipe can resolve: build it in one"
    return AdapterError(f"adapter '{adapter}' fits {fitting}; the base has no {shown}", hint=hint)


def _in_shape(name: str, site: str, pair: LoraPair, slot: Slot) -> LoraPair:
    if slot.rank is not None and pair.rank > slot.rank:
        raise AdapterError(
            f"adapter '{name}' has rank {pair.rank} at site '{site}'; the base takes {slot.rank}",
            hint=f"train it with that rank, or {_NEW_BASE}",
        )
    expected = slot.shapes(pair.rank)
    down, up = _reshaped(pair.down, expected[0]), _reshaped(pair.up, expected[1])
    if (tuple(down.shape), tuple(up.shape)) != expected:
        shapes = f"{tuple(pair.down.shape)} and {tuple(pair.up.shape)}"
        raise AdapterError(f"adapter '{name}' at site '{site}' has shapes {shapes}; expected {expected[0]} and {expected[1]}")
    return LoraPair(down=down, up=up)


def _reshaped(tensor: torch.Tensor, expected: Shape) -> torch.Tensor:
    """Turn (a, b) into (a, b, 1, 1) or back where that is expected; anything else stays as it is."""
    is_pointwise = tuple(tensor.shape[2:]) in ((), (1, 1)) and tuple(expected[2:]) in ((), (1, 1))
    return tensor.reshape(expected) if is_pointwise and tuple(tensor.shape[:2]) == tuple(expected[:2]) else tensor
