"""Adapters: a LoRA as PEFT, diffusers or kohya's scripts save it -> its low-rank pairs by site, and those as graph inputs."""

from quadbench.quad.adapters.adapter import Adapter, Pair
from quadbench.quad.adapters.fit import Base, base_of_graph, base_of_unet, fitted
from quadbench.quad.adapters.formats import load_adapter, read_adapter
from quadbench.quad.adapters.graph import graph_tensors, merge, shared_ranks
from quadbench.quad.adapters.random import random_adapter

__all__ = [
    "Adapter",
    "Base",
    "Pair",
    "base_of_graph",
    "base_of_unet",
    "fitted",
    "graph_tensors",
    "load_adapter",
    "merge",
    "random_adapter",
    "read_adapter",
    "shared_ranks",
]
