"""Adapter file: an adapter's file in a bundle and a graph's LoRA inputs -> their values, padded to the graph's ranks."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from quadbench.artifacts import TensorSpec
from quadbench.errors import ArtifactError

Shape = tuple[int, ...]


def stored_inputs(path: Path, inputs: Iterable[TensorSpec]) -> dict[str, np.ndarray]:
    """Return the LoRA inputs as the harness makes them of the file: zeros beyond the adapter's ranks and at sites that it lacks.

    Raises:
        ArtifactError: the file has a tensor that the graph does not take.
    """
    specs = {spec.name: spec for spec in inputs}
    padded = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    for name, tensor in load_file(path).items():
        spec = specs.get(name)
        if spec is None or tensor.dtype != spec.dtype or not _has_place(name, tensor.shape, spec.shape):
            expected = f"{spec.dtype} {spec.shape} or a smaller rank" if spec else "no such tensor"
            raise ArtifactError(
                f"'{path}' has '{name}' as {tensor.dtype} {tensor.shape}; the graph takes {expected}",
                hint="build the bundle again",
            )
        padded[name][tuple(map(slice, tensor.shape))] = tensor
    return padded


def _has_place(name: str, stored: Shape, taken: Shape) -> bool:
    """Say whether the shapes are equal but for a smaller rank: dimension 0 of `down`, 1 of `up`."""
    axis = 1 if name.endswith(".up") else 0
    return len(stored) == len(taken) and all(
        1 <= own <= most if index == axis else own == most for index, (own, most) in enumerate(zip(stored, taken, strict=True))
    )
