"""Adapter: the low-rank pairs of a LoRA by site, with all of its scale folded into `up`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class LoraPair:
    """The low-rank pair of one site: `down` (r, in[, k, k]) and `up` (out, r[, 1, 1]), float32."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        """Return r."""
        return int(self.down.shape[0])

    @property
    def energy(self) -> float:
        """Return the sum of squares of up*down: that of all products of (up^T up) and (down down^T), which are (r, r)."""
        up, down = self.up.flatten(1).double(), self.down.flatten(1).double()
        return float(((up.T @ up) * (down @ down.T)).sum())


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The text encoder's part of an adapter of which the U-Net's alone was taken.

    `energy_share` is that of the adapter's whole energy, the sum of squares of all that it adds to weights.
    """

    sites: int
    tensors: int
    energy_share: float

    @classmethod
    def of(cls, tensors: int, energies: Sequence[float], *, unet_energy: float) -> "LeftOut":
        """Say what so many tensors with these energies of sites come to."""
        whole = sum(energies) + unet_energy
        return cls(sites=len(energies), tensors=tensors, energy_share=sum(energies) / whole if whole else 0.0)

    def __str__(self) -> str:
        share = f"{self.energy_share:.1%} of the adapter's energy"
        return f"left out for the text encoder: {self.sites} sites ({self.tensors} tensors), {share}"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA by site; `up` carries the whole scale, so that applying it is `W x + up (down x)`."""

    name: str
    pairs: dict[str, LoraPair]
    left_out: LeftOut | None = None

    @property
    def rank(self) -> int:
        """Return the largest rank of any site."""
        return max(pair.rank for pair in self.pairs.values())
