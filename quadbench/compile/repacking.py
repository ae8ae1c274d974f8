"""Repack per-graph U-Nets: one context binary in which equal weights are stored once, or one graph and a patch for each other.

A patch is the difference of two compiled graphs, byte by byte modulo 256, as a safetensors file of zlib streams `0000`, `0001`,
... of `CHUNK_BYTES` each; its metadata has the graph's size in `bytes`. Graphs of one model differ in values, not in layout, so
the differences are small numbers where an adapter changed a weight and 0 elsewhere.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from quadbench.artifacts import Graph, Variant
from quadbench.artifacts.bundle import CompileCost
from quadbench.errors import BuildError
from quadbench.host import peak_memory_bytes
from quadbench.results.manifest import file_ref

CHUNK_BYTES = 2**24
_SAMPLED_BYTES = 2**20  # of each graph, to choose the base of patches
_LEVEL = 9

Bytes = NDArray[np.uint8]
Repacked = tuple[tuple[Graph, ...], dict[str, CompileCost]]


@runtime_checkable
class SharesContexts(Protocol):
    """The interface of compilers that can put several graphs into one context binary with their equal weights stored once."""

    def share_context(self, graphs: Sequence[Graph], source: Path, folder: Path) -> tuple[tuple[Graph, ...], CompileCost]:
        """Compile the graphs in `source` into one context in `folder`. Return their Graphs, and the cost of all together."""
        ...


def repacked(
    graphs: Sequence[Graph],
    compiled: Sequence[Graph],
    compiler: object,
    source: Path,
    folder: Path,
    notify: Callable[[str], None],
) -> Repacked:
    """Write the files of variants `context-shared` and `patched` into `folder`, if `graphs` of a bundle in `source` ask for them.

    Return the new graphs, and costs by graph path. `compiled` are the graphs already in `folder`, the per-graph ones among them.

    Raises:
        BuildError: the compiler refused, or a compiled graph has weights in another file.
    """
    repacked_graphs: list[Graph] = []
    costs = dict[str, CompileCost]()
    if in_context := [graph for graph in graphs if graph.variant is Variant.CONTEXT_SHARED]:
        if not isinstance(compiler, SharesContexts):
            raise TypeError(f"{type(compiler).__name__} cannot share contexts")
        notify(f"{Variant.CONTEXT_SHARED}: {len(in_context)} graphs")
        in_one, cost = compiler.share_context(in_context, source, folder)
        repacked_graphs += in_one
        costs[in_one[-1].file.path] = cost
    if any(graph.variant is Variant.PATCHED for graph in graphs):
        own = [graph for graph in compiled if graph.variant is Variant.PER_GRAPH]
        patched, of_patches = _patched(own, folder, notify)
        repacked_graphs += patched
        costs |= of_patches
    return tuple(repacked_graphs), costs


def _patched(own: Sequence[Graph], folder: Path, notify: Callable[[str], None]) -> Repacked:
    """Write a patch for each graph but the base. Return graphs of variant `patched`, in the order of `own`, and costs."""
    for graph in own:
        if graph.data:
            raise BuildError(f"'{graph.file.path}' has its weights in another file; expected one file, to make a patch of it")
    files = [np.memmap(folder / graph.file.path, np.uint8, "r") for graph in own]
    base = base_of(files)
    graphs, costs = [], {}
    for i, (graph, file) in enumerate(zip(own, files, strict=True)):
        patched = replace(graph, variant=Variant.PATCHED, file=own[base].file)
        if i != base:
            notify(f"{Variant.PATCHED}: {graph.task}")
            place = folder / Variant.PATCHED.value / f"{graph.task}.safetensors"
            place.parent.mkdir(exist_ok=True)
            started = time.monotonic()
            write_patch(files[base], file, place)
            patch = file_ref(folder, place)
            seconds = round(time.monotonic() - started, 3)
            costs[patch.path] = CompileCost(seconds=seconds, peak_memory_bytes=peak_memory_bytes())
            patched = replace(patched, patch=patch)
        graphs.append(patched)
    return tuple(graphs), costs


def base_of(files: Sequence[Bytes]) -> int:
    """Return the index of the file that differs from all others in the fewest bytes, by a sample of them."""
    size = min(file.size for file in files)
    samples = [file[: size : max(1, size // _SAMPLED_BYTES)] for file in files]
    distances = [sum(np.count_nonzero(one != other) for other in samples) for one in samples]
    return distances.index(min(distances))


def write_patch(base: Bytes, wanted: Bytes, place: Path) -> None:
    """Write the patch that turns the bytes `base` into the bytes `wanted` to the file `place`."""
    chunks = {}
    for i, begin in enumerate(range(0, wanted.size, CHUNK_BYTES)):
        part = wanted[begin : begin + CHUNK_BYTES]
        below = np.zeros_like(part)  # the base may be shorter
        below[: base[begin : begin + part.size].size] = base[begin : begin + part.size]
        chunks[f"{i:04}"] = np.frombuffer(zlib.compress((part - below).tobytes(), _LEVEL), np.int8)
    save_file(chunks, place, {"bytes": str(wanted.size)})
