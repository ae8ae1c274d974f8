"""Adapter: the low-rank pairs of a LoRA by site, with all of its scale folded into `up`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
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

    def balanced(self) -> "LoraPair":
        """Return the factors of the same product that its SVD U S V^T gives: `down` is sqrt(S) V^T and `up` is U sqrt(S).

        They depend on the product up*down alone, except for float32's rounding and for turns among equal singular values. The
        rank is that of the product, at least 1; each column of U has its entry of greatest magnitude above 0.
        """
        up_basis, up = torch.linalg.qr(self.up.flatten(1).double())  # (out, r) -> (out, a), (a, r)
        down_basis, down = torch.linalg.qr(self.down.flatten(1).double().T)  # (in*k*k, r) -> (in*k*k, b), (b, r)
        left, values, right = torch.linalg.svd(up @ down.T, full_matrices=False)  # (a, b) -> (a, c), (c,), (c, b)
        rank = max(1, int((values > values[0] * self.rank * torch.finfo(torch.float32).eps).sum()))
        roots = values[:rank].sqrt()
        up, down = up_basis @ left[:, :rank], right[:rank] @ down_basis.T  # (out, rank), (rank, in*k*k)
        signs = up.gather(0, up.abs().argmax(0, keepdim=True)).sign()[0]  # (rank,)
        return self._shaped(down * (signs * roots)[:, None], up * (signs * roots))

    def turned(self, rng: np.random.Generator) -> "LoraPair":
        """Return (Q down, up Q^T) with a random orthogonal Q (r, r), uniform by Haar's measure: the product stays."""
        basis, upper = np.linalg.qr(rng.standard_normal((self.rank, self.rank)))
        turn = torch.from_numpy(basis * np.sign(np.diag(upper)))  # the signs make it uniform (Mezzadri 2007)
        return self._shaped(turn @ self.down.flatten(1).double(), self.up.flatten(1).double() @ turn.T)

    def _shaped(self, down: torch.Tensor, up: torch.Tensor) -> "LoraPair":
        """Give factors (rank, in*k*k) and (out, rank) the shapes of this pair, at their own rank."""
        rank = down.shape[0]
        return LoraPair(down=down.float().view(rank, *self.down.shape[1:]), up=up.float().view(-1, rank, *self.up.shape[2:]))


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
    """A LoRA by site; `up` carries the whole scale, so that applying it is `W x + up (down x)`.

    `weight` is in that scale too: the factor that a user puts on the whole adapter.
    """

    name: str
    pairs: dict[str, LoraPair]
    weight: float = 1.0
    left_out: LeftOut | None = None

    @property
    def rank(self) -> int:
        """Return the largest rank of any site."""
        return max(pair.rank for pair in self.pairs.values())

    def balanced(self) -> "Adapter":
        """Return the adapter with the balanced factors of every site, which no longer show how the file factorises it."""
        return replace(self, pairs={site: pair.balanced() for site, pair in self.pairs.items()})

    def turned(self, number: int) -> "Adapter":
        """Return turn `number` of the adapter: each site turned at random; the name and the number are the seed."""
        rng = np.random.default_rng([number, *self.name.encode()])
        return replace(self, pairs={site: self.pairs[site].turned(rng) for site in sorted(self.pairs)})

    def at(self, weight: float) -> "Adapter":
        """Return the adapter at another weight."""
        if weight == self.weight:
            return self
        factor = weight / self.weight
        pairs = {site: LoraPair(down=pair.down, up=pair.up * factor) for site, pair in self.pairs.items()}
        return replace(self, pairs=pairs, weight=weight)
