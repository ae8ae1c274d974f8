"""Adapter: the low-rank pairs of a LoRA by site, with all of its scale folded into `up`."""

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


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA by site; `up` carries the whole scale, so that applying it is `W x + up (down x)`."""

    name: str
    pairs: dict[str, LoraPair]

    @property
    def rank(self) -> int:
        """Return the largest rank of any site."""
        return max(pair.rank for pair in self.pairs.values())
