"""A compiled bundle's U-Nets -> what LoRA as an input costs a run against merged weights, by operator, as Markdown.

    python bench/lora_branch.py results/bundles/DIGEST results/compiled/DIGEST [--runs 20]

The bundle has the baseline per-graph. Three pairs, with LoRA inputs and without: the float graph as it is and with its branches
cut away; the same with its branches eased, as they are for a CPU; and the shared graph and a task's own, as they were compiled.
Both sides of a pair run in turn in this process, on one thread, with ONNX Runtime's profiler. A node's time is the least of its
runs, so that other work on the machine counts little; the multiply-accumulates are those of the graphs' products as built. The
last row of a pair is the CPU time of a whole run without the profiler: the least of as many runs, and the median of the ratios of
those that took turns. Runs are of random inputs and random LoRAs.
"""

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import onnx
import onnxruntime

from quadbench.compile.lora_branches import fuse_lora_branches
from quadbench.harness.runtime_library import EXACT
from quadbench.quad.quantize.merging import without_lora
from quadbench.quad.quantize.passes import value_shapes

PRODUCTS = {"Conv", "Gemm", "MatMul"}
KINDS = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ", **dict.fromkeys(PRODUCTS, "products")}
KINDS |= {f"Fused{operator}": "products" for operator in PRODUCTS}


class Bound:
    """A session with its inputs and outputs bound, as the harness has them. `profile` is where its nodes' times are recorded."""

    def __init__(self, model: bytes | Path, profile: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.add_session_config_entry(*EXACT)
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        random = np.random.default_rng(0)
        self.binding = self.session.io_binding()
        for value in self.session.get_inputs():
            aligned = onnxruntime.OrtValue.ortvalue_from_numpy(_drawn(random, value))  # as NumPy's memory is not
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


def _drawn(random: np.random.Generator, value: Any) -> np.ndarray:
    if value.type == "tensor(float)":
        return random.normal(0, 0.1 if value.name.startswith("lora.") else 1, value.shape).astype(np.float32)
    return random.integers(-99, 100, value.shape, value.type[len("tensor(") : -1])


def multiply_accumulates(model: onnx.ModelProto) -> int:
    """Count those of all products of a float graph."""
    shapes = value_shapes(model) | {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            second = shapes[node.input[1]]
            depth = second[-2] if node.op_type == "MatMul" else prod(second[1:])
            total += prod(shapes[node.output[0]]) * depth
    return total


def by_kind(times: Mapping[str, tuple[str, float]]) -> tuple[Counter[str], dict[str, float]]:
    counts: Counter[str] = Counter()
    sums: dict[str, float] = defaultdict(float)
    for operator, time_ms in times.values():
        kind = KINDS.get(operator, "others")
        counts[kind] += 1
        sums[kind] += time_ms
    return counts, sums


def compare(title: str, sides: tuple[bytes | Path, bytes | Path], runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        both = [Bound(model, Path(folder) / name) for model, name in zip(sides, ("lora", "merged"), strict=True)]
        in_turn(both, runs)
        (counts, lora), (own_counts, own) = (by_kind(side.times_ms()) for side in both)
        del both
    for kind in ("products", "Q", "DQ", "others"):
        print(f"| {title} | {kind} | {counts[kind]} | {own_counts[kind]} | {lora[kind]:.2f} | {own[kind]:.2f} | |")  # noqa: T201
    total, own_total = sum(lora.values()), sum(own.values())
    sums = f"{counts.total()} | {own_counts.total()} | {total:.2f} | {own_total:.2f} | {total / own_total:.3f}"
    print(f"| {title} | all | {sums} |")  # noqa: T201
    whole = in_turn([Bound(model) for model in sides], runs)
    ratio = median(one / other for one, other in zip(*whole, strict=True))
    print(f"| {title} | a whole run | | | {min(whole[0]):.2f} | {min(whole[1]):.2f} | {ratio:.3f} |")  # noqa: T201


def in_turn(sides: Sequence[Bound], runs: int) -> list[list[float]]:
    """Return the CPU times in ms of each side's runs."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(runs):
        for index in range(len(sides)) if number % 2 == 0 else reversed(range(len(sides))):
            times[index].append(sides[index].run())
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("compiled", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    exact = onnx.load(options.bundle / "float/unet.onnx")
    plain = without_lora(exact)
    counts = [multiply_accumulates(model) for model in (exact, plain)]
    print(f"multiply-accumulates: {counts[0] / 1e6:,.0f} and {counts[1] / 1e6:,.0f} million, ratio {counts[0] / counts[1]:.3f}\n")  # noqa: T201
    print("| graph | nodes | with LoRA inputs | merged | ms | merged, ms | ratio |\n|---|---|---|---|---|---|---|")  # noqa: T201
    compare("float", (exact.SerializeToString(), plain.SerializeToString()), options.runs)
    with tempfile.TemporaryDirectory() as folder:
        fuse_lora_branches(options.bundle / "float/unet.onnx", eased := Path(folder) / "unet.onnx")
        compare("float, eased", (eased, plain.SerializeToString()), options.runs)
    own = sorted(options.compiled.glob("per-graph/*/unet.onnx"))[0]
    compare("compiled", (options.compiled / "shared/unet.onnx", own), options.runs)


if __name__ == "__main__":
    main()
