"""Mix: adapters, each with a weight -> the one adapter that does what all of them together do."""

from collections.abc import Mapping, Sequence

import torch

from quadbench.quad.adapters.adapter import Adapter, LoraPair
from quadbench.recipe import mix_name


def mixed(adapters: Mapping[str, Adapter], weights: Mapping[str, float]) -> Adapter | None:
    """Put the pairs of several adapters beside each other at every site: ranks add up, and so do products. None is no adapter.

    w_1 up_1 down_1 + w_2 up_2 down_2 = [w_1 up_1, w_2 up_2] [down_1; down_2]
    """
    parts = [adapters[name].at(weight) for name, weight in weights.items()]
    if len(parts) < 2:
        return parts[0] if parts else None
    sites = dict.fromkeys(site for part in parts for site in part.pairs)
    pairs = {site: _beside([part.pairs[site] for part in parts if site in part.pairs]) for site in sites}
    return Adapter(name=mix_name(weights), pairs=pairs)


def _beside(pairs: Sequence[LoraPair]) -> LoraPair:
    """Return the pair of the sum of the ranks: down (R, ...), up (out, R, ...)."""
    return LoraPair(down=torch.cat([pair.down for pair in pairs]), up=torch.cat([pair.up for pair in pairs], dim=1))
