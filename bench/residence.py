"""Graphs of any size with LoRA inputs -> what a switch of tasks takes, by where the adapter is, and by loading another graph.

    python bench/residence.py --megabytes 16,866 --rank 36 --rounds 6

The native harness runs on this machine. Its graphs are made up for this: a U-Net is as many INT8 weights of 1280 x 2560 as fill
its megabytes (10^6 bytes), each a site with LoRA inputs of the given rank, that take one row of numbers. So its files have a
real model's bytes and its switches are a real model's; its pictures are nothing. 866 MB are Stable Diffusion 1.5 in W8A16.

In each round come, for each size, two tasks in turn: `cold` and `resident` without reading ahead, `preloaded` with the next
adapter read while a task runs, and `reload` with a graph for each task, whose file is in the page cache. Every second round goes
backwards. Files lie below --folder, and are made where they are missing.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from quadbench.harness.program import ensure_harness
from quadbench.harness.runtime_library import runtime_library
from quadbench.recipe.tasks import NO_TASK
from quadbench.results.layout import Layout

WIDTH, ROWS, LATENT, TOKENS, CONTEXT, FEATURES = 2560, 1280, 64, 8, 16, 4
SITE_BYTES = WIDTH * ROWS
OPSET, IR_VERSION = 21, 10
STEPS = 12
TASKS = ("one", "other")
STATES = ("resident", "preloaded", "cold", "reload")


def floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Mapping[str, np.ndarray]) -> None:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION), path)


def write_parts(folder: Path) -> None:
    """Write text encoder, VAE decoder, sampler table and tensors: the least that the harness takes."""
    ids, states = helper.make_tensor_value_info("input_ids", TensorProto.INT32, (1, TOKENS)), "encoder_hidden_states"
    gather = [helper.make_node("Gather", ["table", "input_ids"], [states])]
    save(folder / "text.onnx", gather, [ids], [floats(states, 1, TOKENS, CONTEXT)], {"table": np.ones((4, CONTEXT), np.float32)})
    decode = [helper.make_node("Conv", ["latent", "mix"], ["image"])]
    save(
        folder / "vae.onnx",
        decode,
        [floats("latent", 1, 4, LATENT, LATENT)],
        [floats("image", 1, 3, LATENT, LATENT)],
        {"mix": np.full((3, 4, 1, 1), 0.25, np.float32)},
    )
    step = {"input_scale": 1.0, "x_start": 0.0, "x": 1.0, "noise": 0.0, "known": {"latent": 1.0, "noise": 0.0}}
    steps = [step | {"eps": [0.0] * number + [-0.1]} for number in range(STEPS)]
    table = {"scheme": "ed", "timesteps": [999 - number for number in range(STEPS)], "fit_error": None, "steps": steps}
    (folder / "table.json").write_text(json.dumps({"schema_version": 1, "start": {"latent": 0.0, "noise": 1.0}, **table}))
    noise = np.random.default_rng(0).normal(size=(1 + STEPS, 4, LATENT, LATENT)).astype(np.float32)
    save_file({"noise.000": noise, "time_features": np.ones((STEPS, FEATURES), np.float32)}, folder / "tensors.safetensors")


def write_unet(path: Path, sites: int, rank: int) -> None:
    """Write a U-Net; without LoRA inputs where the rank is 0."""
    random = np.random.default_rng(sites)
    constants: dict[str, np.ndarray] = {"scale": np.float32(1e-4), "shape": np.array([1, -1]), "zero": np.array([0])}
    constants |= {"end": np.array([WIDTH]), "axis": np.array([1])}
    nodes = [helper.make_node("Reshape", ["sample", "shape"], ["all"])]
    nodes += [helper.make_node("Slice", ["all", "zero", "end", "axis"], ["x"])]  # (1, WIDTH)
    inputs, total = [floats("sample", 1, 4, LATENT, LATENT), floats("time_features", 1, FEATURES)], "x_sum"
    inputs.append(floats("encoder_hidden_states", 1, TOKENS, CONTEXT))
    nodes.append(helper.make_node("ReduceMean", ["x", "axis"], [total]))
    for site in (f"{number:03}" for number in range(sites)):
        constants[f"w{site}"] = random.integers(-127, 128, (ROWS, WIDTH), np.int8)
        results = [linear(nodes, "x", f"w{site}")]
        if rank:
            down, up = f"lora.s{site}.down", f"lora.s{site}.up"
            inputs += [helper.make_tensor_value_info(down, TensorProto.INT16, (rank, WIDTH))]
            inputs += [helper.make_tensor_value_info(up, TensorProto.INT16, (ROWS, rank))]
            results.append(linear(nodes, linear(nodes, "x", down), up))
        nodes += [helper.make_node("Sum", [total, *results], [f"sum{site}"])]
        total = f"sum{site}"
    nodes += [helper.make_node("ReduceMean", [total, "axis"], ["mean"]), helper.make_node("Tanh", ["mean"], ["bounded"])]
    nodes += [helper.make_node("Add", ["sample", "bounded"], ["eps"])]
    save(path, nodes, inputs, [floats("eps", 1, 4, LATENT, LATENT)], constants)


def linear(nodes: list[Any], x: str, weight: str) -> str:
    """Add the product of a row with integers and return its name."""
    nodes.append(helper.make_node("DequantizeLinear", [weight, "scale"], [f"{weight}.dq"]))
    nodes.append(helper.make_node("Gemm", [x, f"{weight}.dq"], [f"{weight}.out"], transB=1))
    return f"{weight}.out"


def write_adapter(path: Path, sites: int, rank: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    tensors = {}
    for number in range(sites):
        tensors[f"lora.s{number:03}.down"] = random.integers(-99, 100, (rank, WIDTH), np.int16)
        tensors[f"lora.s{number:03}.up"] = random.integers(-99, 100, (ROWS, rank), np.int16)
    save_file(tensors, path)


def prepared(folder: Path, megabytes: int, rank: int) -> tuple[Path, int]:
    """Return the folder with the files of one size, and how many sites they have."""
    sites = round(megabytes * 1e6 / SITE_BYTES)
    own = folder / f"{sites}-{rank}"
    if not (own / "done").exists():
        own.mkdir(parents=True, exist_ok=True)
        write_parts(own)
        write_unet(own / "base.onnx", sites, rank)
        for seed, task in enumerate(TASKS):
            write_unet(own / f"{task}.onnx", sites, 0)
            write_adapter(own / f"{task}.safetensors", sites, rank, seed)
        (own / "done").touch()
    return own, sites


def plan_of(folder: Path, *, is_shared: bool, preload: str, switches: int) -> dict[str, Any]:
    item = {"name": "000", "image": None, "mask": None, "tokens": {"input_ids": [1] * TOKENS}, "negative_tokens": None}
    task = {"kind": "text-to-image", "guidance": 1.0, "table": "table.json", "tensors": "tensors.safetensors", "items": [item]}
    own = {name: {"unet": "base" if is_shared else name, "adapter": name if is_shared else None} for name in TASKS}
    return {
        "schema_version": 3,
        "root": str(folder.resolve()),
        "variant": "shared" if is_shared else "per-graph",
        "verify": False,
        "runtime": {"library": str(runtime_library()), "intra_op_threads": 1, "preload": preload, "memory_period_ms": 0},
        "components": {"encoders": {"text_encoder": {"path": "text.onnx"}}, "vae_decoder": {"path": "vae.onnx"}},
        "unets": {"base": {"path": "base.onnx"}} if is_shared else {name: {"path": f"{name}.onnx"} for name in TASKS},
        "adapters": {name: {"path": f"{name}.safetensors"} for name in TASKS} if is_shared else {},
        "tasks": {name: task | own[name] for name in TASKS},
        "sequence": [{"task": TASKS[number % 2], "warmup": 0, "iterations": 1} for number in range(1 + switches)],
        "images": None,
    }


def switches(harness: Path, plan: dict[str, Any], path: Path) -> Iterator[tuple[str, float]]:
    """Run a launch and yield its switches from another task: where the adapter was, and the time in ms."""
    path.write_text(json.dumps(plan))
    lines = subprocess.run([str(harness), str(path)], check=True, capture_output=True, text=True).stdout.splitlines()
    state = "reload"
    for event in (json.loads(line) for line in lines):
        metric, labels = event.get("metric"), event.get("labels", {})
        if metric == "adapter_load_ns":
            state = labels["state"]
        elif metric == "switch_ns" and labels["from"] != NO_TASK:
            yield state, event["value"] / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", default="16,866", help="of the U-Nets, in units of 10^6 bytes")
    parser.add_argument("--rank", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=Path("results/bench/residence"))
    options = parser.parse_args()
    harness = ensure_harness(Layout(Path("results")).programs)
    sizes = {size: prepared(options.folder, size, options.rank)[0] for size in map(int, options.megabytes.split(","))}
    times: dict[tuple[int, str], list[float]] = {(size, state): [] for size in sizes for state in STATES}
    for number in range(options.rounds):
        ways = [(size, way) for size in sizes for way in ((True, "none"), (True, "next"), (False, "none"))]
        for size, (is_shared, preload) in ways if number % 2 == 0 else reversed(ways):
            plan = plan_of(sizes[size], is_shared=is_shared, preload=preload, switches=4 if is_shared else 2)
            for state, switch_ms in switches(harness, plan, options.folder / "plan.json"):
                times[size, state].append(switch_ms)
    report(times, {size: (folder / f"{TASKS[0]}.safetensors").stat().st_size for size, folder in sizes.items()})


def report(times: Mapping[tuple[int, str], list[float]], adapter_bytes: Mapping[int, int]) -> None:
    print("| U-Net, MB | adapter, MB | adapter or graph | switch, ms | from | to | n |\n|---|---|---|---|---|---|---|")  # noqa: T201
    for (size, state), values in times.items():
        row = f"{median(values):,.4f} | {min(values):,.4f} | {max(values):,.4f} | {len(values)}"
        print(f"| {size} | {adapter_bytes[size] / 1e6:.1f} | {state} | {row} |")  # noqa: T201
    for size in adapter_bytes:
        *others, reload = (median(times[size, state]) for state in STATES)
        ratios = ", ".join(f"/ {state} {reload / other:,.1f}" for state, other in zip(STATES, others, strict=False))
        print(f"\n{size} MB: reload {ratios}")  # noqa: T201


if __name__ == "__main__":
    main()
