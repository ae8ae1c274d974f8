"""Adapter: a LoRA as one low-rank pair per layer, with mixing, random adapters, merging and conversion to graph inputs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from quadbench.quad.model.lora import GraphInputs, input_names, input_shapes
from quadbench.recipe import mix_name
from quadbench.recipe.tasks import SiteKind

SITE_ENDINGS: dict[SiteKind, tuple[str, ...]] = {
    "attention": (".to_q", ".to_k", ".to_v", ".to_out.0"),
    "feed-forward": (".ff.net.0.proj", ".ff.net.2"),
    "projection": (".proj_in", ".proj_out"),
    "convolution": (".conv1", ".conv2", ".conv_shortcut"),
}
STRENGTH = 0.1  # of a random adapter's up*down relative to torch's initial weights: more than rounding errors


@dataclass(frozen=True, kw_only=True)
class LoraPair:
    """The low-rank pair of one layer: two float32 tensors, `down` (r, in[, k, k]) and `up` (out, r[, 1, 1]), with rank r."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def energy(self) -> float:
        """Return the squared Frobenius norm of up*down, computed from the (r, r) matrices up^T up and down down^T."""
        up, down = self.up.flatten(1).double(), self.down.flatten(1).double()
        return float(((up.T @ up) * (down @ down.T)).sum())

    def balanced(self) -> "LoraPair":
        """Return a balanced pair. With the SVD up*down = U S V^T of the old pair, `down` is sqrt(S) V^T and `up` is U sqrt(S).

        Both only depend on the product up*down, except for float32's rounding and rotations among equal singular values. The rank
        is that of the product, at least 1; in each column of U the entry of greatest magnitude is positive.
        """
        up_basis, up = torch.linalg.qr(self.up.flatten(1).double())  # (out, r) -> (out, a), (a, r)
        down_basis, down = torch.linalg.qr(self.down.flatten(1).double().T)  # (in*k*k, r) -> (in*k*k, b), (b, r)
        left, values, right = torch.linalg.svd(up @ down.T, full_matrices=False)  # (a, b) -> (a, c), (c,), (c, b)
        rank = max(1, int((values > values[0] * self.rank * torch.finfo(torch.float32).eps).sum()))
        roots = values[:rank].sqrt()
        up, down = up_basis @ left[:, :rank], right[:rank] @ down_basis.T  # (out, rank), (rank, in*k*k)
        signs = up.gather(0, up.abs().argmax(0, keepdim=True)).sign()[0]  # (rank,)
        return self._shaped(down * (signs * roots)[:, None], up * (signs * roots))

    def rotated(self, rng: np.random.Generator) -> "LoraPair":
        """Return the pair (Q down, up Q^T), which leaves up*down unchanged. Q is a random orthogonal matrix (Haar measure)."""
        basis, upper = np.linalg.qr(rng.standard_normal((self.rank, self.rank)))
        turn = torch.from_numpy(basis * np.sign(np.diag(upper)))  # the signs make Q uniform (Mezzadri 2007)
        return self._shaped(turn @ self.down.flatten(1).double(), self.up.flatten(1).double() @ turn.T)

    def _shaped(self, down: torch.Tensor, up: torch.Tensor) -> "LoraPair":
        """Return a new LoraPair of matrices `down` (rank, in*k*k) and `up` (out, rank), reshaped to this pair's kernel size k."""
        rank = down.shape[0]
        return LoraPair(down=down.float().view(rank, *self.down.shape[1:]), up=up.float().view(-1, rank, *self.up.shape[2:]))


@dataclass(frozen=True, kw_only=True)
class OmittedPart:
    """The text encoder's part of an adapter, left out because only the U-Net's part is used. `energy_share` is that part's
    fraction of the adapter's energy, the sum of squares of all weight updates.
    """

    sites: int
    tensors: int
    energy_share: float

    @classmethod
    def from_energies(cls, tensors: int, energies: Sequence[float], *, unet_energy: float) -> "OmittedPart":
        """Create an `OmittedPart` from `energies`, the squared Frobenius norm of each text encoder layer's weight update."""
        whole = sum(energies) + unet_energy
        return cls(sites=len(energies), tensors=tensors, energy_share=sum(energies) / whole if whole else 0.0)

    def __str__(self) -> str:
        share = f"{self.energy_share:.1%} of the adapter's energy"
        return f"left out the text encoder's part: {self.sites} sites ({self.tensors} tensors), {share}"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter. `pairs` maps a layer name to a low-rank pair; a layer with a pair computes `W x + up (down x)`. The
    file's scale (alpha / r) and the user's factor (`weight`) are already multiplied into `up`.
    """

    name: str
    pairs: dict[str, LoraPair]
    weight: float = 1.0
    left_out: OmittedPart | None = None

    @property
    def rank(self) -> int:
        """Return the adapter's rank in the layer where it is largest."""
        return max(pair.rank for pair in self.pairs.values())

    def balanced(self) -> "Adapter":
        """Return a copy in which `down` and `up` of each pair have equal norms. Each product up*down stays the same."""
        return replace(self, pairs={site: pair.balanced() for site, pair in self.pairs.items()})

    def rotated(self, number: int) -> "Adapter":
        """Return a copy with the pairs (Q down, up Q^T). Each Q is a random orthogonal matrix, seeded by `number` and name."""
        rng = np.random.default_rng([number, *self.name.encode()])
        return replace(self, pairs={site: self.pairs[site].rotated(rng) for site in sorted(self.pairs)})

    def at_weight(self, weight: float) -> "Adapter":
        """Return the adapter with the user's factor set to `weight`: each `up` matrix is multiplied by `weight` / old factor."""
        if weight == self.weight:
            return self
        factor = weight / self.weight
        pairs = {site: LoraPair(down=pair.down, up=pair.up * factor) for site, pair in self.pairs.items()}
        return replace(self, pairs=pairs, weight=weight)


def mix_adapters(adapters: Mapping[str, Adapter], weights: Mapping[str, float]) -> Adapter | None:
    """Concatenate weighted adapters along the rank axis into one. `weights` maps adapter name to weight; if empty, return None.

    w_1 up_1 down_1 + w_2 up_2 down_2 = [w_1 up_1, w_2 up_2] [down_1; down_2]
    """
    parts = [adapters[name].at_weight(weight) for name, weight in weights.items()]
    if len(parts) < 2:
        return parts[0] if parts else None
    sites = dict.fromkeys(site for part in parts for site in part.pairs)
    pairs = {}
    for site in sites:
        own = [part.pairs[site] for part in parts if site in part.pairs]
        down, up = torch.cat([pair.down for pair in own]), torch.cat([pair.up for pair in own], dim=1)  # (R, ...), (out, R, ...)
        pairs[site] = LoraPair(down=down, up=up)
    return Adapter(name=mix_name(weights), pairs=pairs)


def random_adapter(name: str, unet: nn.Module, *, rank: int, kinds: Sequence[SiteKind], seed: int) -> Adapter:
    """Return an adapter with random weights at all of the U-Net's layers of the given kinds, such as attention.

    `down` is uniform within 1 / sqrt(in), as in PEFT, and `up` normal with deviation STRENGTH / sqrt(rank), so that up*down has a
    tenth of the deviation of the U-Net's weights. Equal seeds give equal adapters.
    """
    generator = torch.Generator().manual_seed(seed)
    endings = tuple(ending for kind in kinds for ending in SITE_ENDINGS[kind])
    pairs = {}
    for site, module in sorted((site, module) for site, module in unet.named_modules() if site.endswith(endings)):
        down, up = input_shapes(site, module, rank).values()
        bound = math.prod(down[1:]) ** -0.5
        pairs[site] = LoraPair(
            down=(torch.rand(down, generator=generator) * 2 - 1) * bound,
            up=torch.randn(up, generator=generator) * (STRENGTH / rank**0.5),
        )
    return Adapter(name=name, pairs=pairs)


def shared_ranks(adapters: Iterable[Adapter]) -> dict[str, int]:
    """Return a dict from layer name to the shared graph's LoRA rank: the largest rank that any adapter has in that layer."""
    ranks: dict[str, int] = {}
    for adapter in adapters:
        for site, pair in adapter.pairs.items():
            ranks[site] = max(ranks.get(site, 0), pair.rank)
    return dict(sorted(ranks.items()))


def own_tensors(adapter: Adapter) -> GraphInputs:
    """Return a dict from LoRA input name (`lora.<layer>.down` or `.up`) to tensor, at the adapter's rank without padding."""
    return {
        name: tensor
        for site, pair in adapter.pairs.items()
        for name, tensor in zip(input_names(site), (pair.down, pair.up), strict=True)
    }


def graph_tensors(adapter: Adapter | None, shapes: Mapping[str, tuple[int, ...]]) -> GraphInputs:
    """Return a dict from LoRA input name to tensor, padded with zeros to the graph's ranks. Layers without a LoRA pair get zeros.
    If the adapter is None, every layer gets zeros.
    """
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, tensor in (own_tensors(adapter) if adapter else {}).items():
        tensors[name][tuple(map(slice, tensor.shape))] = tensor
    return tensors


def merge(adapter: Adapter, unet: nn.Module) -> None:
    """Add an adapter's updates to a U-Net in place, as new weight tensors. Other U-Nets that share old tensors stay unchanged."""
    for site, pair in adapter.pairs.items():
        module = unet.get_submodule(site)
        delta = pair.up.flatten(1) @ pair.down.flatten(1)  # (out, r) @ (r, in*k*k) -> (out, in*k*k)
        module.weight = nn.Parameter(module.weight + delta.view_as(module.weight), requires_grad=False)
