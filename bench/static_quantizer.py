"""quadbench's QDQ writer against onnxruntime.quantization's static quantizer: same graph and feeds; time and memory as ratios.

    python bench/static_quantizer.py [--samples 8] [--rounds 3]

The graph is the built-in U-Net with LoRA inputs at every attention, feed-forward and residual convolution site. Each side runs in
a process of its own, in turn; what is compared is calibration and quantization, without imports and the export before them.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDES = ("quadbench", "onnxruntime")
RANK = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8, help="U-Net passes that calibrate (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(_quantize(options.side, options.folder)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = _prepare(folder, options.samples)
        command = [sys.executable, __file__, "--folder", name, "--side"]
        results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side in SIDES:
                done = subprocess.run([*command, side], capture_output=True, text=True, check=True)
                results[side].append(json.loads(done.stdout.splitlines()[-1]))
    _show(results, inputs, options)


def _prepare(folder: Path, samples: int) -> int:
    """Write the float graph and the feeds; returns how many LoRA inputs the graph has."""
    import onnx
    import torch

    from quadbench import zoo
    from quadbench.quad.foundation import load_foundation
    from quadbench.quad.graphs import export_unet

    foundation = load_foundation(zoo.foundation_folder("emoji-ldm"))
    kinds = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "conv1", "conv2", "proj_in", "proj_out")
    ranks = {name: RANK for name, _ in foundation.unet.named_modules() if name.endswith(kinds)}
    with torch.no_grad():
        model = export_unet(foundation, foundation.unet, ranks, folder)
    onnx.save(model, folder / "float.onnx")
    rng = np.random.default_rng(0)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input}
    for i in range(samples):
        feed = {n: rng.standard_normal(s).astype(np.float32) * (0.02 if n.startswith("lora.") else 1) for n, s in shapes.items()}
        np.savez(folder / f"feed_{i}.npz", **feed)
    return sum(name.startswith("lora.") for name in shapes)


def _quantize(side: str, folder: Path) -> dict[str, float]:
    feeds = [dict(np.load(path)) for path in sorted(folder.glob("feed_*.npz"))]
    quantize = _with_quadbench if side == "quadbench" else _with_onnxruntime
    prepared = quantize(folder, feeds)
    started = time.perf_counter()
    prepared()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _with_quadbench(folder: Path, feeds: list[dict[str, np.ndarray]]):
    import onnx

    from quadbench.quad.calibration import observe_ranges
    from quadbench.quad.encodings import symmetric
    from quadbench.quad.qdq import activation_encodings, quantize_graph

    def quantize() -> None:
        model = onnx.load(folder / "float.onnx")
        ranges = observe_ranges(model, feeds)
        lora = {n: symmetric(r.magnitude, "int16") for n, r in ranges.items() if n.startswith("lora.")}
        onnx.save(quantize_graph(model, activation_encodings(model, ranges, dtype="uint16"), lora), folder / "ours.onnx")

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


def _show(results: dict[str, list[dict[str, float]]], inputs: int, options: argparse.Namespace) -> None:
    lines = [f"built-in U-Net, {inputs} LoRA inputs, {options.samples} samples, {options.rounds} rounds; medians"]
    medians = {side: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for side, runs in results.items()}
    for side in SIDES:
        lines.append(f"{side:12} {medians[side]['seconds']:8.2f} s {medians[side]['peak_mb']:8.0f} MB")
    ours, peer = (medians[side] for side in SIDES)
    lines.append(
        f"onnxruntime / quadbench: {peer['seconds'] / ours['seconds']:.1f}x time, {peer['peak_mb'] / ours['peak_mb']:.2f}x memory"
    )
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
