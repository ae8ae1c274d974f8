"""A bundle's U-Nets -> what LoRA as an input costs a run against merged weights, as ratios and by operator, as Markdown.

    python bench/lora_branch.py results/bundles/DIGEST [--turns 120] [--runs 40]

The bundle has the baseline per-graph. Two groups of graphs: the float graphs, and the quantized ones as they are compiled for a
CPU. The first table has CPU times of whole runs of a group's sides, in turn in this process, on one thread, without a profiler:

- merged: the graph without LoRA inputs (float), or a task's own graph
- static: LoRA inputs of the bundle's rank, as compiled without `ease_compiled_branches`
- eased: the same file after it, with a random LoRA of the bundle's rank at all sites, with the ranks and sites of each adapter of
  the bundle, and with none

A ratio is to merged, of the same turn. Medians of ten turns each give the interval of the mean (95 %). `products` are the
multiply-accumulates of a side over those of merged weights, as the graphs were built. The second table has the nodes' times by
ONNX Runtime's profiler, each the least of its runs. Inputs are random. Freed memory is kept as the harness keeps it.
"""

import argparse
import ctypes
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import fmean, median
from time import process_time
from typing import Any

import numpy as np
import onnx
import onnxruntime
from safetensors import safe_open

from quadbench.compile.cpu_graph import allow_folding, defer_weights, split_attention
from quadbench.compile.lora_branches import ease_compiled_branches, fuse_lora_branches
from quadbench.harness.runtime_library import EXACT
from quadbench.quad.model.lora_sites import without_lora
from quadbench.quad.quantize.passes import value_shapes
from quadbench.statistics.intervals import interval_of_mean

PRODUCTS = {"Conv", "Gemm", "MatMul"}
KINDS = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ", **dict.fromkeys(PRODUCTS, "products")}
KINDS |= {f"Fused{operator}": "products" for operator in PRODUCTS}
BLOCK = 10
Ranks = Callable[[str], int]


class Bound:
    """A session with its inputs and outputs bound, as the harness has them. `ranks` gives the rank of an input that takes any.

    `profile` is where its nodes' times are recorded.
    """

    def __init__(self, model: Path, ranks: Ranks, profile: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.add_session_config_entry(*EXACT)
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        random = np.random.default_rng(0)
        self.binding = self.session.io_binding()
        for value in self.session.get_inputs():
            shape = [ranks(value.name) if isinstance(size, str) else size for size in value.shape]
            aligned = onnxruntime.OrtValue.ortvalue_from_numpy(_drawn(random, value, shape))  # as NumPy's memory is not
            self.binding.bind_ortvalue_input(value.name, aligned)
        for value in self.session.get_outputs():
            result = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(value.shape, np.float32))
            self.binding.bind_ortvalue_output(value.name, result)

    def run(self) -> float:
        """Return the CPU time in ms."""
        begin = process_time()
        self.session.run_with_iobinding(self.binding)
        return (process_time() - begin) * 1e3

    def times_ms(self) -> dict[str, tuple[str, float]]:
        """Return the least time of each node, with its operator."""
        events = json.loads(Path(self.session.end_profiling()).read_text())
        seen: dict[str, list[float]] = defaultdict(list)
        operators = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                seen[event["name"]].append(event["dur"] / 1e3)
                operators[event["name"]] = event["args"]["op_name"]
        return {name: (operators[name], min(durations)) for name, durations in seen.items()}


def _drawn(random: np.random.Generator, value: Any, shape: Sequence[int]) -> np.ndarray:
    if value.type == "tensor(float)":
        return random.normal(0, 0.1 if value.name.startswith("lora.") else 1, shape).astype(np.float32)
    return random.integers(-99, 100, shape, value.type[len("tensor(") : -1])


def multiply_accumulates(model: onnx.ModelProto) -> Counter[str]:
    """Count those of the products of a float graph, by LoRA input; the base's under an empty name."""
    shapes = value_shapes(model) | {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            second = shapes[node.input[1]]
            depth = second[-2] if node.op_type == "MatMul" else prod(second[1:])
            name = node.input[1] if node.input[1].startswith("lora.") else ""
            counts[name] += prod(shapes[node.output[0]]) * depth
    return counts


def compiled(source: Path, path: Path, *, is_eased: bool = True) -> Path:
    """Write a graph as OnnxRuntimeCompiler does for a CPU; without `is_eased`, with static LoRA inputs."""
    fused = path.with_suffix(".fused")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level, options.optimized_model_filepath = 3, str(path)
    options.add_session_config_entry(*EXACT)
    onnxruntime.InferenceSession(fused if fuse_lora_branches(source, fused) else source, options)
    allow_folding(path)
    if is_eased:
        ease_compiled_branches(path)
    split_attention(path)
    defer_weights(path)
    return path


def ranks_of(file: Path) -> dict[str, int]:
    with safe_open(file, "numpy") as tensors:
        return {name: tensors.get_slice(name).get_shape()[1 if name.endswith(".up") else 0] for name in tensors.keys()}  # noqa: SIM118


def in_turn(sides: Sequence[Bound], turns: int) -> list[list[float]]:
    """Return the CPU times in ms of each side's runs."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(turns):
        for index in range(len(sides)) if number % 2 == 0 else reversed(range(len(sides))):
            times[index].append(sides[index].run())
    return times


def ratios(group: str, sides: Mapping[str, Bound], products: Mapping[str, float], turns: int) -> None:
    times = in_turn([*sides.values()], turns)
    for side, of_side in zip(sides, times, strict=True):
        each = [one / other for one, other in zip(of_side, times[0], strict=True)]
        blocks = [median(each[i : i + BLOCK]) for i in range(0, turns - BLOCK + 1, BLOCK)]
        low, high = interval_of_mean(blocks, 0.95) or (float("nan"), float("nan"))
        told = "1" if side == "merged" else f"{fmean(blocks):.3f} ({low:.3f} to {high:.3f})"
        print(f"| {group} | {side} | {products[side]:.3f} | {min(of_side):.2f} | {median(of_side):.2f} | {told} |", flush=True)  # noqa: T201


def by_kind(times: Mapping[str, tuple[str, float]]) -> tuple[Counter[str], dict[str, float]]:
    counts: Counter[str] = Counter()
    sums: dict[str, float] = defaultdict(float)
    for operator, time_ms in times.values():
        for kind in (KINDS.get(operator, "others"), "all"):
            counts[kind] += 1
            sums[kind] += time_ms
    return counts, sums


def operators(group: str, paths: Mapping[str, Path], ranks: Ranks, runs: int, folder: Path) -> None:
    sides = [Bound(path, ranks, folder / f"{group}-{side}") for side, path in paths.items()]
    in_turn(sides, runs)
    tables = [by_kind(side.times_ms()) for side in sides]
    for kind in ("products", "Q", "DQ", "others", "all"):
        cells = " | ".join(f"{counts[kind]} | {sums.get(kind, 0):.2f}" for counts, sums in tables)
        print(f"| {group} | {kind} | {cells} |", flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--turns", type=int, default=120)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 32 << 20), libc.mallopt(-1, 64 << 20)  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, as in memory.cpp
    exact = onnx.load(options.bundle / "float/unet.onnx")
    counts = multiply_accumulates(exact)
    greatest = {
        value.name: value.type.tensor_type.shape.dim[1 if value.name.endswith(".up") else 0].dim_value
        for value in exact.graph.input
    }
    adapters = {file.stem: ranks_of(file) for file in sorted((options.bundle / "adapters").glob("*.safetensors"))}
    sets = {"bundle's rank": greatest, **adapters, "none": dict[str, int]()}

    def share(ranks: Mapping[str, int]) -> float:
        lora = sum(count * ranks.get(name, 0) / greatest[name] for name, count in counts.items() if name)
        return 1 + lora / counts[""]

    products = {"merged": 1.0, "static": share(greatest)} | {f"eased, {name}": share(ranks) for name, ranks in sets.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(without_lora(exact), folder / "plain.onnx")
        own = sorted((options.bundle / "per-graph").glob("*/unet.onnx"))[0]
        sources = {
            "float": (folder / "plain.onnx", options.bundle / "float/unet.onnx"),
            "quantized": (own, options.bundle / "shared/unet.onnx"),
        }
        graphs = {}
        for group, (plain, lora) in sources.items():
            merged = compiled(plain, folder / f"{group}-merged.onnx")
            static = compiled(lora, folder / f"{group}-static.onnx", is_eased=False)
            eased = Path(shutil.copy(static, folder / f"{group}-eased.onnx"))
            ease_compiled_branches(eased)
            defer_weights(eased)
            graphs[group] = {"merged": merged, "static": static, "eased": eased}
        print("| graphs | side | products | least, ms | median, ms | ratio (95 %) |\n|---|---|---|---|---|---|")  # noqa: T201
        for group, paths in graphs.items():
            sides = {side: Bound(paths[side], lambda _: 0) for side in ("merged", "static")}
            sides |= {f"eased, {name}": Bound(paths["eased"], lambda one, of=of: of.get(one, 0)) for name, of in sets.items()}
            in_turn([*sides.values()], 3)
            ratios(group, sides, products, options.turns)
            del sides
        titles = " | ".join(f"{side}, nodes | ms" for side in graphs["float"])
        print(f"\n| graphs | kind | {titles} |\n|---|---|---|---|---|---|---|---|")  # noqa: T201
        for group, paths in graphs.items():
            operators(group, paths, lambda one: greatest[one], options.runs, folder)


if __name__ == "__main__":
    main()
