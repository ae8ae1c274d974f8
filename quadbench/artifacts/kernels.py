"""Kernels: how the nodes of a graph compute on a device's CPU, as numbers, and the names under which records keep them."""

from dataclasses import dataclass

KERNEL_NODES = "kernel_nodes"  # the metric; a sample for each graph and kind
KERNEL_KINDS = ("in_integers", "in_float", "quantize", "dequantize")


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The nodes of a graph as the runtime's optimizer left it, by how they compute.

    `in_float` are all that compute and take no integers; `products_in_float` are the convolutions and matrix products among them.
    Nodes that only move values are not counted.
    """

    in_integers: int
    in_float: int
    products_in_float: int
    quantize: int  # QuantizeLinear
    dequantize: int  # DequantizeLinear

    @property
    def by_kind(self) -> dict[str, int]:
        """Return the numbers that records keep, by the kind that their samples are labelled with."""
        return {kind: getattr(self, kind) for kind in KERNEL_KINDS}

    @property
    def is_simulated(self) -> bool:
        """Say whether convolutions or matrix products between quantized activations are computed in float."""
        return self.quantize > 0 and self.products_in_float > 0
