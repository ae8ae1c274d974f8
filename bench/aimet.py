"""AIMET's encodings for each adapter by itself against one shared profile: SQNR of eps, same model, same inputs.

    python -m venv AIMET && AIMET/bin/pip install aimet-onnx
    python bench/aimet.py --aimet AIMET/bin/python [--recipe quickstart]

AIMET (Qualcomm's toolkit) knows no LoRA inputs and no shared encodings: for each task it gets the U-Net with the adapter
merged. Three columns, W8A16, minimum and maximum without headroom, all calibrated on the inputs of all tasks: AIMET with its
configuration for HTP v79, quadbench's own graph for each task, quadbench's shared graph.
"""

import argparse
import copy
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from quadbench.quad.prepare import PreparedRecipe
    from quadbench.recipe import Task

CONFIG = "htp_v79"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aimet", type=Path, metavar="PYTHON", help="the Python of an environment with aimet-onnx")
    parser.add_argument("--recipe", default="quickstart", help="a recipe (default: quickstart)")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_aimet_db(options.side)))  # noqa: T201
        return
    if options.aimet is None or not options.aimet.is_file():
        sys.exit("--aimet names no Python with aimet-onnx; make one: python -m venv AIMET && AIMET/bin/pip install aimet-onnx")
    print("| task | AIMET, for the task | quadbench, for the task | quadbench, shared |\n|---|---|---|---|")  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        for task, own_db, shared_db in _quadbench_db(options.recipe, Path(name)):
            done = subprocess.run(
                [options.aimet, __file__, "--side", Path(name) / task], stdout=subprocess.PIPE, text=True, check=True
            )
            aimet_db = json.loads(done.stdout.splitlines()[-1])
            print(f"| `{task}` | {aimet_db:.1f} | {own_db:.1f} | {shared_db:.1f} |", flush=True)  # noqa: T201


def _quadbench_db(recipe_name: str, folder: Path) -> list[tuple[str, float, float]]:
    """Return the name of each task and the SQNR of both of our graphs; leave model and inputs in `folder` for the other side."""
    import torch

    from quadbench.artifacts import Component
    from quadbench.quad.adapters.adapter import graph_tensors, mix_adapters
    from quadbench.quad.adapters.lora_profile import adapter_integers, lora_profile
    from quadbench.quad.prepare import BuildSteps, prepare
    from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq
    from quadbench.quad.runner import GraphSession
    from quadbench.recipe.recipe import load_recipe

    with torch.no_grad():
        prepared = prepare(load_recipe(recipe_name), BuildSteps(), folder)
        lora = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype="int16")
        tasks = [(task, own) for task in prepared.tasks if (own := mix_adapters(lora.adapters, task.task.adapter))]
        inputs = {task.task.name: prepared.visits[task.task.name].feeds for task, _ in tasks}
        feeds = [f | prepared.feed(a) for task, own in tasks for f in inputs[task.task.name] for a in (own, None)]
        shared = GraphSession(
            write_qdq(CalibratedGraph(ObservedGraph(prepared.models[Component.UNET], feeds)), lora=lora.encodings).model
        )
        rows = []
        for task, adapter in tasks:
            integers = adapter_integers(graph_tensors(adapter, prepared.shapes), lora.encodings)
            calibration = [feed for own in inputs.values() for feed in own]
            of_shared = partial(_with_lora, shared, integers)
            own_db, shared_db = _both_db(prepared, task.task, calibration, of_shared, folder)
            rows.append((task.task.name, own_db, shared_db))
    return rows


def _with_lora(graph: Callable, lora: dict[str, np.ndarray], feed: dict[str, np.ndarray]) -> np.ndarray:
    return graph(feed | lora).numpy()


def _both_db(
    prepared: "PreparedRecipe", task: "Task", calibration: Sequence[dict], shared: Callable[[dict], np.ndarray], folder: Path
) -> tuple[float, float]:
    """Return the SQNR of the task's own graph and of the shared one, on the same inputs; leave what AIMET needs in `folder`."""
    import onnx

    from quadbench.quad.adapters.adapter import merge, mix_adapters
    from quadbench.quad.distill import examples
    from quadbench.quad.model.float_graphs import export_unet
    from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq
    from quadbench.quad.runner import GraphSession

    adapter = mix_adapters(prepared.adapters, task.adapter)
    unet = copy.deepcopy(prepared.foundation.unet)
    merge(adapter, unet)
    merged = export_unet(prepared.foundation, unet, {}, folder)
    own = GraphSession(write_qdq(CalibratedGraph(ObservedGraph(merged, calibration))).model)
    items = {one.task.name: one.items.calibration for one in prepared.tasks if adapter.name in one.task.adapter}
    judged = examples(prepared, adapter, items, seeds=(5,), noised=False)
    exact = [example.teacher.numpy() for example in judged]
    inputs = [example.feed for example in judged]
    _leave(folder / task.name, calibration, inputs, exact)
    onnx.save(merged, folder / task.name / "unet.onnx")
    return _sqnr_db(exact, inputs, lambda feed: own(feed).numpy()), _sqnr_db(exact, inputs, shared)


def _leave(
    folder: Path, calibration: Sequence[dict[str, np.ndarray]], judged: Sequence[dict], exact: Sequence[np.ndarray]
) -> None:
    folder.mkdir()
    for part, feeds in (("calibration", calibration), ("judged", judged)):
        np.savez(folder / f"{part}.npz", **{name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]})
    np.save(folder / "exact.npy", np.stack(exact))


def _aimet_db(folder: Path) -> float:
    """Return the SQNR of AIMET's graph; runs in AIMET's environment, where quadbench is not."""
    import onnx
    from aimet_onnx.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(
        onnx.load(folder / "unet.onnx"),
        param_type="int8",
        activation_type="int16",
        quant_scheme="min_max",
        config_file=CONFIG,
        providers=["CPUExecutionProvider"],
    )
    sim.compute_encodings(_feeds(folder / "calibration.npz"))
    exact = list(np.load(folder / "exact.npy"))
    return _sqnr_db(exact, _feeds(folder / "judged.npz"), lambda feed: sim.session.run(None, feed)[0])


def _feeds(path: Path) -> list[dict[str, np.ndarray]]:
    arrays = dict(np.load(path))
    return [{name: array[i] for name, array in arrays.items()} for i in range(len(next(iter(arrays.values()))))]


def _sqnr_db(exact: Sequence[np.ndarray], feeds: Sequence[dict], run: Callable[[dict], np.ndarray]) -> float:
    noise = sum(float(np.square(run(feed) - right).sum()) for feed, right in zip(feeds, exact, strict=True))
    return 10 * math.log10(sum(float(np.square(right).sum()) for right in exact) / noise)


if __name__ == "__main__":
    main()
