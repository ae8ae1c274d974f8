"""Adapters: a LoRA as PEFT, diffusers or kohya's scripts save it -> its low-rank pairs by site, and those as graph inputs."""

from quadbench.quad.adapters.adapter import Adapter, LeftOut, LoraPair
from quadbench.quad.adapters.fit import BaseSites, fitted, sites_of_graph, sites_of_unet
from quadbench.quad.adapters.formats import load_adapter, read_adapter
from quadbench.quad.adapters.graph import graph_tensors, merge, own_tensors, shared_ranks
from quadbench.quad.adapters.random import random_adapter

__all__ = [
    "Adapter",
    "BaseSites",
    "LeftOut",
    "LoraPair",
    "fitted",
    "graph_tensors",
    "load_adapter",
    "merge",
    "own_tensors",
    "random_adapter",
    "read_adapter",
    "shared_ranks",
    "sites_of_graph",
    "sites_of_unet",
]
