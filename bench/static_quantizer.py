"""quadbench's QDQ writer against onnxruntime.quantization's static quantizer: same graph and feeds; time and memory as ratios.

    python bench/static_quantizer.py [--size builtin large] [--samples 8] [--rounds 3]

`builtin` is the built-in U-Net with LoRA inputs at every attention, feed-forward and residual convolution site. `large` is a
U-Net of Stable Diffusion 1.5's shape and 0.3 of its width, 81 million random weights on latents of 32x32, with LoRA inputs at its
128 attention sites: the static quantizer does not survive the whole width. Each side runs in a process of its own, in turn, and
is given the graph as it takes it: weights above 256 MiB lie in a file beside it. Times are those of calibration and
quantization, without imports and the export before them; a busy machine leaves CPU time alone. Memory is the whole process's at
most (VmHWM), and how much of that came after imports and feeds, which are a third of it where the graph is small. Neither side
imports torch; in a build it is there beside the quantizer.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from quadbench.host import peak_memory_bytes

if TYPE_CHECKING:
    from quadbench.quad.model.foundation import Foundation

SIDES = ("quadbench", "onnxruntime")
SIZES = ("builtin", "large")
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
OTHERS = ("net.0.proj", "net.2", "conv1", "conv2", "proj_in", "proj_out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, nargs="+", default=SIZES, help="of the U-Net (default: both)")
    parser.add_argument("--samples", type=int, default=8, help="U-Net passes that calibrate (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_quantize(options.side, options.folder)))  # noqa: T201
        return
    for size in options.size:
        with tempfile.TemporaryDirectory() as name:
            title = _prepare(Path(name), size, options.samples)
            _show(_results(name, options.rounds), title, options)


def _results(folder: str, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return the figures of each side's runs, which take turns."""
    command = [sys.executable, __file__, "--folder", folder, "--side"]
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            done = subprocess.run([*command, side], capture_output=True, text=True, check=True)
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def _prepare(folder: Path, size: str, samples: int) -> str:
    """Write the float graph and the feeds, and return a title of the graph."""
    import torch

    from quadbench.quad.model.float_graphs import export_unet

    foundation, kinds, rank = _foundation(size)
    unet = foundation.unet
    ranks = {name: rank for name, _ in unet.named_modules() if name.endswith(kinds)}
    with torch.no_grad():
        model = export_unet(foundation, unet, ranks, folder)
    _save(model, folder)
    rng = np.random.default_rng(0)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input}
    for i in range(samples):
        feed = {n: rng.standard_normal(s).astype(np.float32) * (0.02 if n.startswith("lora.") else 1) for n, s in shapes.items()}
        np.savez(folder / f"feed_{i}.npz", **feed)
    weights = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
    return f"{size} U-Net, {weights:.0f} million weights, {sum(name.startswith('lora.') for name in shapes)} LoRA inputs"


def _foundation(size: str) -> "tuple[Foundation, tuple[str, ...], int]":
    """Return the model, the endings of its LoRA sites' names and their rank."""
    from diffusers import UNet2DConditionModel

    from quadbench import zoo
    from quadbench.quad.model.foundation import load_foundation, random_foundation
    from quadbench.quad.model_files import part_folder

    if size == "builtin":
        return load_foundation(zoo.foundation_folder("emoji-ldm")), (*ATTENTION, *OTHERS), 16
    config = UNet2DConditionModel.load_config(part_folder("sd15", "unet"))
    config |= {"block_out_channels": [96, 192, 384, 384], "sample_size": 32}
    unet = UNet2DConditionModel.from_config(config)
    foundation = random_foundation("sd15", seed=0)
    sizes = foundation.sizes._replace(latent=config["sample_size"])
    return replace(foundation, skeleton=unet, sizes=sizes, readers={"unet": lambda: unet}), ATTENTION, 32


def _save(model: onnx.ModelProto, folder: Path) -> None:
    """Write the graph as a build holds it, and for the peer, which needs the file of large weights beside the graph."""
    from quadbench.quad.model.initializers import file_of, with_weights_file

    onnx.save(model, folder / "built.onnx")
    outside = file_of(model)
    if outside:
        shutil.copyfile(outside, folder / "weights")
    onnx.save(with_weights_file(model, "weights") if outside else model, folder / "float.onnx")


def _quantize(side: str, folder: Path) -> dict[str, float]:
    feeds = [dict(np.load(path)) for path in sorted(folder.glob("feed_*.npz"))]
    quantize = _with_quadbench if side == "quadbench" else _with_onnxruntime
    prepared = quantize(folder, feeds)
    before_mb = peak_memory_bytes() / 1e6
    started, cpu_started = time.perf_counter(), time.process_time()
    prepared()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak_mb = peak_memory_bytes() / 1e6
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb, "grown_mb": peak_mb - before_mb}


def _with_quadbench(folder: Path, feeds: list[dict[str, np.ndarray]]):
    from quadbench.quad.quantize.encodings import symmetric
    from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq

    def quantize() -> None:
        calibrated = CalibratedGraph(ObservedGraph(onnx.load(folder / "built.onnx", load_external_data=False), feeds))
        lora = {n: symmetric(r.magnitude, "int16") for n, r in calibrated.ranges("uint16").items() if n.startswith("lora.")}
        onnx.save(write_qdq(calibrated, lora=lora).model, folder / "ours.onnx")

    return quantize


def _with_onnxruntime(folder: Path, feeds: list[dict[str, np.ndarray]]):
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    logging.disable(logging.WARNING)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    def quantize() -> None:
        quantize_static(
            folder / "float.onnx",
            folder / "peer.onnx",
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )

    return quantize


def _show(results: dict[str, list[dict[str, float]]], title: str, options: argparse.Namespace) -> None:
    lines = [f"{title}, {options.samples} samples, {options.rounds} rounds; medians"]
    medians = {side: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for side, runs in results.items()}
    for side in SIDES:
        seconds, cpu_seconds, peak_mb, grown_mb = medians[side].values()
        memory = f"{peak_mb:8.0f} MB at most, {grown_mb:.0f} MB after imports and feeds"
        lines.append(f"{side:12} {seconds:8.2f} s {cpu_seconds:8.2f} s CPU {memory}")
    ratios = [medians["onnxruntime"][key] / value for key, value in medians["quadbench"].items()]
    lines.append("onnxruntime / quadbench: {:.1f}x time, {:.1f}x CPU time, {:.2f}x memory, {:.2f}x of it later".format(*ratios))
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
