"""Repack per-graph U-Nets: one context binary in which equal weights are stored once, or one graph and a patch for each other.

A patch is the difference of two compiled graphs, byte by byte modulo 256. Graphs of one model differ in values and hardly in
layout: differences are small numbers where an adapter changed a weight, and 0 elsewhere. A compiler may move weights, so each
block of `BLOCK_BYTES` has its own shift: the distance to what it is like in the other graph. A patch is a safetensors file with
these shifts and zlib streams `0000`, `0001`, ... of `CHUNK_BYTES` each; its metadata has the graph's size in `bytes`.
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
BLOCK_BYTES = 2**16
MOST_BYTES = 2**31  # shifts are INT32, and an ONNX file is no larger
_WORD_BYTES, _ANCHOR_BYTES = 8, 512
_SAMPLED_BYTES = 2**21  # of each graph, to choose the base of patches; at least one block
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
        if graph.data or graph.file.size_bytes >= MOST_BYTES:
            raise BuildError(f"'{graph.file.path}' is no patchable graph; expected one file of less than {MOST_BYTES} bytes")
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
    """Return the index of the file of which patches make all others in the fewest bytes, by a sample of their blocks."""
    if len(files) < 3:
        return 0
    sizes = [sum(_sampled_size(one, other) for other in files if other is not one) for one in files]
    return sizes.index(min(sizes))


def _sampled_size(base: Bytes, wanted: Bytes) -> int:
    step = max(1, wanted.size // _SAMPLED_BYTES)
    blocks = zip(range(0, wanted.size, step * BLOCK_BYTES), shifts_of(base, wanted, step), strict=True)
    return len(zlib.compress(b"".join(block_difference(base, wanted, begin, int(shift)) for begin, shift in blocks), 1))


def write_patch(base: Bytes, wanted: Bytes, place: Path) -> None:
    """Write the patch that turns the bytes `base` into the bytes `wanted` to the file `place`."""
    shifts = shifts_of(base, wanted)
    tensors = {"shifts": shifts}
    for i, chunk in enumerate(range(0, wanted.size, CHUNK_BYTES)):
        begins = range(chunk, min(chunk + CHUNK_BYTES, wanted.size), BLOCK_BYTES)
        difference = b"".join(block_difference(base, wanted, begin, int(shifts[begin // BLOCK_BYTES])) for begin in begins)
        tensors[f"{i:04}"] = np.frombuffer(zlib.compress(difference, _LEVEL), np.int8)
    save_file(tensors, place, {"bytes": str(wanted.size)})


def block_difference(base: Bytes, wanted: Bytes, begin: int, shift: int) -> bytes:
    """Return the bytes of a block of `wanted` minus those of `base` that lie `shift` further on, or 0 where it has none."""
    part = wanted[begin : begin + BLOCK_BYTES].copy()
    low, high = (min(max(-begin - shift, 0), part.size), min(max(base.size - begin - shift, 0), part.size))
    part[low:high] -= base[begin + shift + low : begin + shift + high]
    return part.tobytes()


def shifts_of(base: Bytes, wanted: Bytes, step: int = 1) -> NDArray[np.int32]:
    """Return for each block of `wanted`, or each `step`-th, how many bytes further on `base` is most like it.

    Words of 8 bytes that `base` has once, at every `_ANCHOR_BYTES`, are looked for in the block; their distances vote. A block
    with fewer than two equal votes lies as far off as the one before.
    """
    places = np.arange(0, base.size - _WORD_BYTES + 1, _ANCHOR_BYTES)
    anchors, first, count = np.unique(_words(base)[places], return_index=True, return_counts=True)
    anchors, places = anchors[count == 1], places[first[count == 1]]
    shifts, shift = [], 0
    for begin in range(0, wanted.size, step * BLOCK_BYTES):
        words = _words(wanted[begin : begin + BLOCK_BYTES])
        known = np.searchsorted(anchors, words).clip(max=max(0, anchors.size - 1))
        offsets = np.flatnonzero(anchors[known] == words) if anchors.size else np.empty(0, np.int64)
        distances, votes = np.unique(places[known[offsets]] - (begin + offsets), return_counts=True)
        if votes.max(initial=0) > 1:
            shift = int(distances[votes.argmax()])
        shifts.append(shift)
    return np.array(shifts, np.int32)


def _words(content: Bytes) -> NDArray[np.uint64]:
    """Return the word of 8 bytes at each byte, without a copy."""
    length = max(0, content.size - _WORD_BYTES + 1)
    return np.ndarray((length,), np.uint64, np.ascontiguousarray(content), strides=(1,)) if length else np.empty(0, np.uint64)
