"""Adapters: a LoRA as PEFT, diffusers or kohya's scripts save it -> its low-rank pairs by site, and those as graph inputs."""

from quadbench.quad.adapters.adapter import (
    Adapter,
    LeftOut,
    LoraPair,
    graph_tensors,
    merge,
    mixed,
    own_tensors,
    random_adapter,
    shared_ranks,
)
from quadbench.quad.adapters.loading import BaseSites, fitted, load_adapter, read_adapter, sites_of_graph, sites_of_unet

__all__ = [
    "Adapter",
    "BaseSites",
    "LeftOut",
    "LoraPair",
    "fitted",
    "graph_tensors",
    "load_adapter",
    "merge",
    "mixed",
    "own_tensors",
    "random_adapter",
    "read_adapter",
    "shared_ranks",
    "sites_of_graph",
    "sites_of_unet",
]
