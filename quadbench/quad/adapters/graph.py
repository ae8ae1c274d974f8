"""Graph: adapters -> the LoRA inputs of the shared graph, or an adapter merged into a U-Net's own weights."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from quadbench.quad.adapters.adapter import Adapter
from quadbench.quad.model.lora import GraphInputs, input_names


def shared_ranks(adapters: Iterable[Adapter]) -> dict[str, int]:
    """Return the rank of every site in the shared graph: the largest among the adapters."""
    ranks: dict[str, int] = {}
    for adapter in adapters:
        for site, pair in adapter.pairs.items():
            ranks[site] = max(ranks.get(site, 0), pair.rank)
    return dict(sorted(ranks.items()))


def own_tensors(adapter: Adapter) -> GraphInputs:
    """Return an adapter's tensors by the names of their LoRA inputs, each at the adapter's own rank, as its file holds them."""
    return {
        name: tensor
        for site, pair in adapter.pairs.items()
        for name, tensor in zip(input_names(site), (pair.down, pair.up), strict=True)
    }


def graph_tensors(adapter: Adapter | None, shapes: Mapping[str, tuple[int, ...]]) -> GraphInputs:
    """Return an adapter's LoRA inputs: zero-padded to the graph's ranks, zeros at sites that it lacks; None is no adapter."""
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, tensor in (own_tensors(adapter) if adapter else {}).items():
        tensors[name][tuple(map(slice, tensor.shape))] = tensor
    return tensors


def merge(adapter: Adapter, unet: nn.Module) -> None:
    """Give the U-Net's sites weights with the adapter added; the old ones, which others may share, stay as they are."""
    for site, pair in adapter.pairs.items():
        module = unet.get_submodule(site)
        delta = pair.up.flatten(1) @ pair.down.flatten(1)  # (out, r) @ (r, in*k*k) -> (out, in*k*k)
        module.weight = nn.Parameter(module.weight + delta.view_as(module.weight), requires_grad=False)
