"""A bundle -> the native harness against ONNX Runtime's Python API, and against itself without reading memory, in turn.

    python bench/python_api.py recipes/quickstart.yaml --launches 8 [--bundle results/bundles/DIGEST]

All sides run the shared graphs of the recipe's tasks in one order, on this machine, with the same threads and settings, each in a
fresh process. `python` runs each graph as often as the harness does for an image, with the adapter bound once and random inputs;
it has no sampler, no image and no clock but that of its runs. `unwatched` is the harness with `memory_period_ms` 0. Rounds go
through all sides, every second one backwards.

A figure is the median over launches of a launch's, which is the mean over tasks of their medians; the ratio to the harness has
its interval at 95 % over blocks of two launches. CPU time in user mode, which other work on the machine changes less, is of
loading and running: of the harness's whole process, and of Python's without its imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import onnxruntime
from runtime import Unwatched

from quadbench.artifacts import Bundle, LaunchPlan, TensorSpec, Variant
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.harness.installation import harness_plan
from quadbench.harness.runtime_library import EXACT
from quadbench.pipeline import ensure_bundle
from quadbench.quad.runner import mixed_inputs
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.rollout import roll_out
from quadbench.statistics.launch_comparison import compare_launches

SIDES = ("harness", "python", "unwatched")
FIGURES = {
    "unet_ns": "U-Net step, ms",
    "graphs_ns": "all graphs of an image, ms",
    "user_ns": "CPU time in user mode, ms",
}


class GraphSession:
    """A graph with the harness's settings and every input bound."""

    def __init__(self, path: str, runtime: Mapping[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = runtime["intra_op_threads"], 1
        options.enable_cpu_mem_arena = options.enable_mem_pattern = runtime["arena"] != "none"
        options.add_session_config_entry(*EXACT)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def bound(self, fixed: Mapping[str, np.ndarray]) -> onnxruntime.IOBinding:
        random, binding = np.random.default_rng(0), self.session.io_binding()
        for value in self.session.get_inputs():
            values = random.normal(size=value.shape).astype(np.float32) if value.type == "tensor(float)" else None
            given = fixed.get(value.name, np.ones(value.shape, np.int32) if values is None else values)
            binding.bind_ortvalue_input(value.name, onnxruntime.OrtValue.ortvalue_from_numpy(given))
        for value in self.session.get_outputs():
            output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, np.float32)
            binding.bind_ortvalue_output(value.name, output)
        return binding


def run_in_python(plan: Mapping[str, Any]) -> dict[str, float]:
    """Run the graphs of a plan as often as the harness does, and return the medians of what it measures too."""
    root, runtime, before_s = Path(plan["root"]), plan["runtime"], resource.getrusage(resource.RUSAGE_SELF).ru_utime
    files = plan["components"]["encoders"] | {name: file for name, file in plan["components"].items() if name != "encoders"}
    components = {name: GraphSession(str(root / file["path"]), runtime) for name, file in files.items()}
    unet = GraphSession(str(root / plan["unets"]["base"]["path"]), runtime)
    bound = {name: component.bound({}) for name, component in components.items()}
    adapters = {name: unet.bound(lora_inputs(plan, name, unet)) for name in plan["tasks"]}
    steps_ns, images_ns = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for block in plan["sequence"]:
        task = plan["tasks"][block["task"]]
        steps = len(json.loads((root / task["table"]).read_text())["steps"])
        runs = 1 if task["guidance"] == 1.0 else 2
        for iteration in range(block["warmup"] + block["iterations"]):
            begin = time.perf_counter_ns()
            for _ in range(runs):
                components["text_encoder"].session.run_with_iobinding(bound["text_encoder"])
            if task["kind"] != "text-to-image":
                components["vae_encoder"].session.run_with_iobinding(bound["vae_encoder"])
            own_ns = []
            for _ in range(steps):
                step_begin = time.perf_counter_ns()
                for _ in range(runs):
                    unet.session.run_with_iobinding(adapters[block["task"]])
                own_ns.append(time.perf_counter_ns() - step_begin)
            components["vae_decoder"].session.run_with_iobinding(bound["vae_decoder"])
            if iteration >= block["warmup"]:
                steps_ns[block["task"]] += own_ns
                images_ns[block["task"]].append(time.perf_counter_ns() - begin)
    user_s = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before_s
    return {"unet_ns": over_tasks(steps_ns), "graphs_ns": over_tasks(images_ns), "user_ns": user_s * 1e9}


def over_tasks(times: Mapping[str, Sequence[float]]) -> float:
    """Return the mean over tasks of their medians: tasks differ in what a step and an image take."""
    return mean(map(median, times.values()))


def lora_inputs(plan: Mapping[str, Any], task: str, unet: GraphSession) -> dict[str, np.ndarray]:
    dtypes = {"tensor(int16)": "int16", "tensor(int8)": "int8"}
    specs = [
        TensorSpec(name=value.name, shape=tuple(value.shape), dtype=dtypes[value.type])
        for value in unet.session.get_inputs()
        if value.name.startswith("lora.")
    ]
    adapter = plan["tasks"][task]["adapter"]
    mix = plan["mixes"].get(adapter, {adapter: 1.0}) if adapter else {}
    return mixed_inputs([(Path(plan["root"]) / plan["adapters"][name]["path"], factor) for name, factor in mix.items()], specs)


def heard(lines: Sequence[str]) -> dict[str, float]:
    """Return the same medians of a harness's events."""
    samples = [event for event in map(json.loads, lines) if event.get("event") == "sample" and not event.get("is_warmup")]
    parts = ("text_encoder_ns", "vae_encoder_ns", "unet_ns", "vae_decoder_ns")
    steps, images = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    total = 0.0
    for sample in samples:
        total += sample["value"] if sample["metric"] in parts else 0.0
        if sample["metric"] == "unet_ns":
            steps[sample["task"]].append(sample["value"])
        if sample["metric"] == "end_to_end_ns":
            images[sample["task"]].append(total)
            total = 0.0
    return {"unet_ns": over_tasks(steps), "graphs_ns": over_tasks(images)}


def launched(command: Sequence[str]) -> tuple[list[str], float]:
    """Return the lines that a process wrote, and its CPU time in user mode in nanoseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return lines, (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before) * 1e9


def measured(side: str, harness: str, plan: dict[str, Any], folder: Path) -> dict[str, float]:
    runtime = plan["runtime"] | {"memory_period_ms": 0 if side == "unwatched" else 40}
    path = folder / "plan.json"
    path.write_text(json.dumps(plan | {"runtime": runtime}))
    if side == "python":
        return json.loads(launched([sys.executable, __file__, "--plan", str(path)])[0][-1])
    lines, user_ns = launched([harness, str(path)])
    return heard(lines) | {"user_ns": user_ns}


def report(figures: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    print("| figure | side | median | lowest | highest | side / harness (95 %) |\n|---|---|---|---|---|---|")  # noqa: T201
    for key, title in FIGURES.items():
        own = [launch[key] for launch in figures["harness"]]
        for side in SIDES:
            values = [launch[key] for launch in figures[side]]
            compared = compare_launches(own, values)
            is_told = side != "harness" and compared.low is not None
            ratio = f"{compared.ratio:.3f} ({compared.low:.3f} to {compared.high:.3f})" if is_told else ""
            cells = " | ".join(f"{size / 1e6:,.1f}" for size in (median(values), min(values), max(values)))
            print(f"| {title} | {side} | {cells} | {ratio} |")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="recipes/quickstart.yaml")
    parser.add_argument("--bundle", type=Path, help="one that was built from the recipe before")
    parser.add_argument("--launches", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        print(json.dumps(run_in_python(json.loads(options.plan.read_text()))))  # noqa: T201
        return
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    bundle = (
        read_manifest(options.bundle, Bundle) if options.bundle else ensure_bundle(recipe, layout=layout, observer=Unwatched())
    )
    sequence = tuple(SequenceBlock(task=task.name, warmup=1, iterations=options.iterations) for task in recipe.tasks)
    figures: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with connect(parse_addresses(["local"]), layout=layout) as devices, tempfile.TemporaryDirectory() as folder:
        (installation,) = roll_out([bundle], devices, layout=layout, observer=Unwatched(), runs_float=False).installations
        launch = LaunchPlan(variant=Variant.SHARED, launch=0, sequence=sequence)
        plan = harness_plan(installation, launch, runtime=recipe.runtime, images=None)
        harness = installation.path_of_digest(installation.program, "the harness")
        for number in range(options.launches):
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                figures[side].append(measured(side, harness, plan, Path(folder)))
    report(figures)


if __name__ == "__main__":
    main()
