"""Embedding: a network's embeddings of images -> how alike the images look to it."""

import math

import torch
from torch.nn import functional as F


def similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the cosine of two embeddings (1, d)."""
    return float(F.cosine_similarity(first, second).mean())


def direction_similarity(image: torch.Tensor, reference: torch.Tensor, source: torch.Tensor) -> float:
    """Return the cosine of the ways from the source's embedding to the image's and to the reference's.

    Each embedding (1, d) is scaled to length 1. NaN if one of them did not move away from the source.
    """
    start = F.normalize(source)
    ways = [F.normalize(end) - start for end in (image, reference)]
    if any(float(way.norm()) == 0 for way in ways):
        return math.nan
    return similarity(*ways)


def structure_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the mean square of the difference of two self-similarities, cosines of all pairs of tokens (1, T, d)."""
    return float(F.mse_loss(_self_similarity(first), _self_similarity(second)))


def _self_similarity(tokens: torch.Tensor) -> torch.Tensor:
    unit = F.normalize(tokens[0], dim=-1)  # (T, d)
    return unit @ unit.T  # (T, T)
