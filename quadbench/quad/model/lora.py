"""LoRA as input: wrapping a U-Net so that its LoRA weights and conditions are arguments of `forward`.

`y = W x + up (down x)` (QUAD, arXiv 2603.29535, eq. 3; `down` is its B and PEFT's lora_A, `up` its A and PEFT's lora_B).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from quadbench.artifacts import LORA_PREFIX
from quadbench.errors import AdapterError
from quadbench.quad.families.family import Condition

GraphInputs = dict[str, torch.Tensor]


def input_names(site: str) -> tuple[str, str]:
    """Return the names of a LoRA's graph inputs, `lora.<site>.down` and `lora.<site>.up`; `site` is a layer's module name."""
    return f"{LORA_PREFIX}{site}.down", f"{LORA_PREFIX}{site}.up"


def input_shapes(site: str, module: nn.Module, rank: int) -> dict[str, tuple[int, ...]]:
    """Return a dict from LoRA input name to shape: `down` (r, in), `up` (out, r); for Conv2d (r, in, h, w) and (out, r, 1, 1)."""
    down, up = input_names(site)
    if isinstance(module, nn.Linear):
        return {down: (rank, module.in_features), up: (module.out_features, rank)}
    if isinstance(module, nn.Conv2d) and module.groups == 1:
        return {down: (rank, module.in_channels, *module.kernel_size), up: (module.out_channels, rank, 1, 1)}
    raise AdapterError(f"site '{site}' is a {type(module).__name__}; expected Linear or ungrouped Conv2d")


class LoraSite(nn.Module):
    """A module that wraps a Linear or Conv2d layer and adds a LoRA. `forward` reads the LoRA's tensors from the dict `inputs`."""

    def __init__(self, base: nn.Linear | nn.Conv2d, site: str, inputs: GraphInputs) -> None:
        super().__init__()
        self.base = base
        self._down, self._up = input_names(site)
        self._inputs = inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output plus `up (down x)`. Two small products cost less than one product with the matrix up*down."""
        down, up = self._inputs[self._down], self._inputs[self._up]
        if isinstance(self.base, nn.Linear):
            low_rank = F.linear(F.linear(x, down), up)
        else:
            base = self.base
            low_rank = F.conv2d(F.conv2d(x, down, None, base.stride, base.padding, base.dilation), up)
        return self.base(x) + low_rank


class GivenEmbedding(nn.Module):
    """A replacement for a module that computes an embedding, such as a U-Net's sinusoids of the time step. It returns the graph
    input `name` instead.
    """

    def __init__(self, name: str, inputs: GraphInputs) -> None:
        super().__init__()
        self._name = name
        self._inputs = inputs

    def forward(self, _numbers: torch.Tensor) -> torch.Tensor:
        return self._inputs[self._name]


def denoiser_arguments(conditions: Sequence[Condition], values: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the keyword arguments with which a denoiser's `forward` takes conditions. `values` maps their names to tensors."""
    arguments: dict[str, Any] = {}
    for condition in conditions:
        *parents, leaf = condition.argument.split(".")
        place = arguments
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = values[condition.name]
    return arguments


class UnetGraph(nn.Module):
    """A denoiser of diffusers that takes its conditions and LoRA tensors as inputs, as docs/formats.md describes.

    It takes over the modules of `unet`, whose attention is already plain, and replaces some; weights do not change.
    """

    def __init__(self, unet: nn.Module, conditions: Sequence[Condition], ranks: Mapping[str, int]) -> None:
        super().__init__()
        self.unet = unet
        self._conditions = tuple(conditions)
        self._inputs: GraphInputs = {}
        for condition in conditions:
            if condition.module is not None:
                self.unet.set_submodule(condition.module, GivenEmbedding(condition.name, self._inputs))
        self.lora_shapes: dict[str, tuple[int, ...]] = {}
        for site in sorted(ranks):
            module = self.unet.get_submodule(site)
            self.lora_shapes |= input_shapes(site, module, ranks[site])
            parent, _, leaf = site.rpartition(".")
            setattr(self.unet.get_submodule(parent), leaf, LoraSite(module, site, self._inputs))

    @property
    def lora_names(self) -> tuple[str, ...]:
        """Return the names of the LoRA inputs in graph order, which is alphabetical."""
        return tuple(sorted(self.lora_shapes))

    def forward(self, sample: torch.Tensor, conditions: list[torch.Tensor], lora: list[torch.Tensor]) -> torch.Tensor:
        """Return a prediction of the latent's shape (1, 4, h, w), for `conditions` in the family's order and `lora` in that of
        `lora_names`.
        """
        names = [condition.name for condition in self._conditions]
        self._inputs.update(zip((*names, *self.lora_names), (*conditions, *lora), strict=True))
        placeholder = torch.zeros(1, device=sample.device)  # in place of numbers whose embedding is an input
        values = {one.name: placeholder if one.module else self._inputs[one.name] for one in self._conditions}
        eps: torch.Tensor = self.unet(sample, **denoiser_arguments(self._conditions, values), return_dict=False)[0]
        self._inputs.clear()
        return eps
