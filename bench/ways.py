"""Bytes of 2, 5 and 10 tasks by way to serve them: LoRAs as inputs, graphs, one context that shares weights, a base and patches.

    python bench/ways.py RECIPE [--target qnn-v79-69] [--counts 2,5,10] [--tasks 10] [--deltas] --work DIR [--results DIR]

Builds as many of the recipe's tasks as `--tasks` says and compiles their graphs; then one context of the first tasks for each
count that was built, and patches. A recipe with fewer tasks gets more like its last one, with random adapters of other seeds.
Each figure is kept in DIR as soon as it is known, so a second call goes on where the first one ended. Counts above `--tasks`
are extrapolated and say so: contexts by the line through the two greatest, all else by means. `--deltas` compares ways to make
a patch, on the graphs before and after compiling: the difference of bytes with zlib, bzip2 and xz, and zstd's --patch-from and
bsdiff where the packages zstandard and bsdiff4 are installed.
"""

import argparse
import bz2
import json
import lzma
import platform
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from quadbench.artifacts import Component, Graph, StoredBundle, StoredCompiled, Variant
from quadbench.compile import compile_bundle
from quadbench.compile.qnn import QnnCompiler
from quadbench.compile.repacking import BLOCK_BYTES, base_of, block_difference, shifts_of, write_patch
from quadbench.quad.build import build
from quadbench.quad.cache import find_bundle
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.results.manifest import temporary_folder
from quadbench.target.profile import find_target, known_targets, load_profiles
from quadbench.target.targets import QnnTarget

Bytes = np.ndarray
Delta = Callable[[Bytes, Bytes], int]


@dataclass(kw_only=True)
class Figures:
    """What is known so far, kept in the file `place`: numbers by name, such as `context 5`."""

    place: Path
    known: dict[str, float] = field(default_factory=dict)

    def of(self, name: str, make: Callable[[], float]) -> float:
        if name not in self.known:
            started = time.monotonic()
            self.known[name] = make()
            self.known[f"{name}, s"] = round(time.monotonic() - started, 1)
            self.place.write_text(json.dumps(self.known, indent=1))
        return self.known[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--target", default="qnn-v79-69")
    parser.add_argument("--counts", default="2,5,10")
    parser.add_argument("--tasks", type=int, default=10, help="how many tasks are built")
    parser.add_argument("--deltas", action="store_true", help="compare ways to make a patch")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    built = [count for count in counts if count <= options.tasks]
    layout, recipe = Layout(options.results), with_tasks(load_recipe(options.recipe), options.tasks)
    bundle = find_bundle(recipe, layout) or build(recipe, layout, notify=print)
    known = find_target(options.target, known_targets(load_profiles(), platform.machine()))
    compiled = compile_bundle(bundle, known.target, known.key, layout, htp_arch=known.htp_arch, notify=print)
    options.work.mkdir(parents=True, exist_ok=True)
    place = options.work / f"{recipe.name}-{known.key}-{bundle.artifact.digest[:12]}.json"
    figures = Figures(place=place, known=json.loads(place.read_text()) if place.is_file() else {})
    patches = dict(patch_bytes(compiled, built, figures, options.work))
    contexts: dict[int, float] = {}
    if isinstance(known.target, QnnTarget):
        compiler = QnnCompiler(htp_arch=known.target.htp_arch, soc_model=known.target.soc_model)
        contexts = dict(context_bytes(compiler, bundle, built, figures, options.work))
    lines = table(bundle, compiled, counts, contexts, patches)
    if options.deltas:
        lines += ["", *delta_table({"compiled": compiled, "before": bundle}, figures)]
    print("\n".join(lines))  # noqa: T201


def with_tasks(recipe: Recipe, count: int) -> Recipe:
    """Return the recipe with `count` tasks and per-graph U-Nets. Further tasks are the last one with adapters of other seeds."""
    tasks, adapters = list(recipe.tasks[:count]), dict(recipe.adapters)
    last = tasks[-1]
    for number in range(len(tasks) + 1, count + 1):
        (adapter,) = (adapters[name] for name in last.adapter)
        adapters[name := f"more-{number}"] = adapter.model_copy(update={"seed": number})
        tasks.append(last.model_copy(update={"name": name, "adapter": {name: 1.0}}))
    return recipe.model_copy(update={"tasks": tuple(tasks), "adapters": adapters, "baselines": ("per-graph",)})


def own_unets(stored: StoredBundle | StoredCompiled) -> list[Graph]:
    return [graph for graph in stored.artifact.graphs if graph.variant is Variant.PER_GRAPH]


def contents(stored: StoredBundle | StoredCompiled) -> list[Bytes]:
    return [np.memmap(stored.path(graph.file), np.uint8, "r") for graph in own_unets(stored)]


def context_bytes(
    compiler: QnnCompiler, bundle: StoredBundle, counts: Sequence[int], figures: Figures, work: Path
) -> Iterator[tuple[int, float]]:
    """Yield each count with the bytes of one context of the first tasks, and of the small files that refer to it."""

    def compile_first(count: int) -> float:
        with temporary_folder(work / f"context-{count}") as folder:
            graphs, cost = compiler.share_context(own_unets(bundle)[:count], bundle.folder, folder)
            figures.known[f"context {count}, peak bytes"] = cost.peak_memory_bytes
            files = {file for graph in graphs for file in (graph.file, graph.data) if file}
            return sum(file.size_bytes for file in files)

    for count in counts:
        yield count, figures.of(f"context {count}", lambda count=count: compile_first(count))


def patch_bytes(compiled: StoredCompiled, counts: Sequence[int], figures: Figures, work: Path) -> Iterator[tuple[int, float]]:
    """Yield each count with the bytes of one graph of the first tasks, and of the patches that make the others of it."""
    files = contents(compiled)

    def patch(base: int, i: int) -> float:
        place = work / "patch.safetensors"
        write_patch(files[base], files[i], place)
        return place.stat().st_size

    for count in counts:
        base = base_of(files[:count])
        others = [i for i in range(count) if i != base]
        yield count, files[base].size + sum(figures.of(f"patch of {base} to {i}", lambda i=i: patch(base, i)) for i in others)  # noqa: B023


def table(
    bundle: StoredBundle,
    compiled: StoredCompiled,
    counts: Sequence[int],
    contexts: Mapping[int, float],
    patches: Mapping[int, float],
) -> list[str]:
    """Return the lines of a Markdown table: MB (10^6) of all files by way and number of tasks, and times the shared graph's."""
    shared = {g.component: g.file.size_bytes for g in compiled.artifact.graphs if g.variant is Variant.SHARED}
    unet = shared.pop(Component.UNET)
    parts, own = sum(shared.values()), [graph.file.size_bytes for graph in own_unets(compiled)]
    loras = {a.name: a.file.size_bytes for a in bundle.artifact.adapters if a.variant is Variant.SHARED}
    lines = [
        f"Text encoder and VAE {parts / 1e6:.2f} MB, counted once in each sum; shared U-Net {unet / 1e6:.2f}.",
        "",
        "| tasks | LoRAs as inputs | a graph each | one context | a base and patches | times LoRAs': graphs, context, patches |",
        "|---|---|---|---|---|---|",
    ]
    for count in counts:
        names = {name for task in bundle.artifact.tasks[:count] for name in task.weights}
        missing = max(0, count - len(own))
        sums = [
            parts + unet + sum(loras[name] for name in names) + missing * mean(loras.values()),
            parts + sum(own[:count]) + missing * mean(own),
            parts + context if (context := extrapolated(contexts, count)) else None,
            parts + patched if (patched := extrapolated(patches, count)) else None,
        ]
        how = ", extrapolated" if missing else ""
        cells = [f"{each / 1e6:.2f}" if each else "–" for each in sums]
        ratios = ", ".join(f"{each / sums[0]:.2f}" if each else "–" for each in sums[1:])
        lines.append(f"| {' | '.join((f'{count}{how}', *cells, ratios))} |")
    points = [(1, own[0]), *sorted(contexts.items())] if contexts else []  # a context of one graph is the graph by itself
    slopes = [(b, (above - below) / (b - a)) for (a, below), (b, above) in pairwise(points)]
    lines += [f"A further task up to {count}: {slope / 1e6:.2f} MB in the context." for count, slope in slopes]
    return lines


def extrapolated(known: Mapping[int, float], count: int) -> float | None:
    """Return the value at `count`: the known one, or that of the line through the two greatest known; None if fewer are known."""
    if count in known or len(known) < 2:
        return known.get(count)
    a, b = sorted(known)[-2:]
    return known[b] + (count - b) * (known[b] - known[a]) / (b - a)


def delta_table(stored: Mapping[str, Any], figures: Figures) -> list[str]:
    """Return the lines of a Markdown table: MB of a mean patch by way to make it, of graphs compiled and before."""
    lines = ["| way to make a patch | " + " | ".join(stored) + " |", "|---|" + "---|" * len(stored)]
    for name, delta in DELTAS.items():
        cells = []
        for kind, one in stored.items():
            files = contents(one)
            base = base_of(files)
            others = [i for i in range(len(files)) if i != base]
            sizes = [figures.of(f"{name} {kind} {i}", lambda i=i: delta(files[base], files[i])) for i in others]  # noqa: B023
            cells.append(f"{sum(sizes) / len(sizes) / 1e6:.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def difference(base: Bytes, wanted: Bytes) -> bytes:
    """Return the bytes of `wanted` minus those of `base` in the same places, modulo 256."""
    below = np.zeros_like(wanted)
    below[: min(base.size, wanted.size)] = base[: wanted.size]
    return bytes((wanted - below).tobytes())


def shifted(base: Bytes, wanted: Bytes) -> bytes:
    """Return the same with each block's shift: what a patch of quadbench compresses."""
    begins = range(0, wanted.size, BLOCK_BYTES)
    return b"".join(block_difference(base, wanted, *each) for each in zip(begins, shifts_of(base, wanted).tolist(), strict=True))


def patch_from(base: Bytes, wanted: Bytes) -> int:
    """Return the bytes of zstd's --patch-from: the base is a raw prefix, the window holds both, and matches are long."""
    import zstandard

    raw = zstandard.ZstdCompressionDict(base.tobytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    window = max(10, (base.size + wanted.size).bit_length())
    settings = zstandard.ZstdCompressionParameters.from_level(19, window_log=min(window, 31), enable_ldm=True)
    return len(zstandard.ZstdCompressor(dict_data=raw, compression_params=settings).compress(wanted.tobytes()))


def bsdiff(base: Bytes, wanted: Bytes) -> int:
    import bsdiff4

    return len(bsdiff4.diff(base.tobytes(), wanted.tobytes()))


DELTAS: dict[str, Delta] = {
    "zlib of the file alone": lambda _, wanted: len(zlib.compress(wanted.tobytes(), 9)),
    "difference in place, zlib": lambda base, wanted: len(zlib.compress(difference(base, wanted), 9)),
    "difference with shifts, zlib (quadbench's)": lambda base, wanted: len(zlib.compress(shifted(base, wanted), 9)),
    "difference with shifts, bzip2": lambda base, wanted: len(bz2.compress(shifted(base, wanted))),
    "difference with shifts, xz": lambda base, wanted: len(lzma.compress(shifted(base, wanted), preset=9)),
}
if find_spec("zstandard"):
    DELTAS["zstd --patch-from"] = patch_from
if find_spec("bsdiff4"):
    DELTAS["bsdiff"] = bsdiff


if __name__ == "__main__":
    main()
