"""Adapter file: adapters' files in a bundle and a graph's LoRA inputs -> their values, padded to the graph's ranks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from quadbench.artifacts import TensorSpec
from quadbench.errors import ArtifactError

Shape = tuple[int, ...]
Tensors = Mapping[str, np.ndarray]


def stored_inputs(path: Path, inputs: Iterable[TensorSpec]) -> dict[str, np.ndarray]:
    """Return the LoRA inputs as the harness makes them of one file.

    Raises:
        ArtifactError: the file has a tensor that the graph does not take.
    """
    return mixed_inputs([(path, 1.0)], inputs)


def mixed_inputs(files: Sequence[tuple[Path, float]], inputs: Iterable[TensorSpec]) -> dict[str, np.ndarray]:
    """Return the LoRA inputs as the harness makes them of files, each with the factor on its `up`, as `beside` does."""
    return beside([(f"'{path}'", load_file(path), factor) for path, factor in files], inputs)


def beside(parts: Sequence[tuple[str, Tensors, float]], inputs: Iterable[TensorSpec]) -> dict[str, np.ndarray]:
    """Return the LoRA inputs of adapters' tensors, each adapter with what messages call it and the factor on its `up`: their
    ranks lie beside each other, and zeros where there are none.

    Raises:
        ArtifactError: an adapter has a tensor that the graph does not take, or the graph has no room for all of them.
    """
    specs = {spec.name: spec for spec in inputs}
    padded = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    filled: Counter[str] = Counter()
    for adapter, tensors, factor in parts:
        for name, tensor in tensors.items():
            spec, axis = specs.get(name), 1 if name.endswith(".up") else 0
            if spec is None or tensor.dtype != spec.dtype or not _has_place(tensor.shape, spec.shape, axis, filled[name]):
                expected = f"{spec.dtype} {spec.shape} or a smaller rank" if spec else "no such tensor"
                taken = f", of which rank {filled[name]} is taken" if filled[name] else ""
                raise ArtifactError(
                    f"{adapter} has '{name}' as {tensor.dtype} {tensor.shape}; the graph takes {expected}{taken}",
                    hint="build the bundle again",
                )
            place = [slice(size) for size in tensor.shape]
            place[axis] = slice(filled[name], filled[name] + tensor.shape[axis])
            padded[name][tuple(place)] = _scaled(tensor, factor) if axis == 1 else tensor
            filled[name] += tensor.shape[axis]
    return padded


def _scaled(tensor: np.ndarray, factor: float) -> np.ndarray:
    """Return the tensor times the factor; integers are rounded to the nearest, half to even."""
    if np.issubdtype(tensor.dtype, np.floating):
        return tensor * tensor.dtype.type(factor)
    return np.rint(tensor * factor).astype(tensor.dtype)


def _has_place(stored: Shape, taken: Shape, axis: int, filled: int) -> bool:
    """Say whether the shapes are equal but for a rank, along `axis`, that fits beside those that are filled."""
    return len(stored) == len(taken) and all(
        1 <= own <= most - filled if index == axis else own == most
        for index, (own, most) in enumerate(zip(stored, taken, strict=True))
    )
