"""TFLite run: a QDQ graph or a .tflite file, and values for its inputs -> what LiteRT and ONNX Runtime make of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from quadbench.compile.tflite import reencode_for_litert
from quadbench.quad.quantize.calibration import observe_ranges
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.qdq import activation_encodings, quantize_graph

Feed = dict[str, np.ndarray]


def quantized_by_feed(model: onnx.ModelProto, feed: Feed, lora: dict[str, Encoding] | None = None) -> onnx.ModelProto:
    """Write a float graph as a bundle's: 16-bit activations with the ranges of one feed."""
    return quantize_graph(model, activation_encodings(model, observe_ranges(model, [feed]), dtype="uint16", lora=lora), lora)


def dialect_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a QDQ graph in LiteRT's dialect."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return reencode_for_litert(copy)


def run_tflite(path: Path, feed: Feed) -> np.ndarray:
    """Return the first output of LiteRT's CPU."""
    return tflite_runner(path)(feed)


def tflite_runner(path: Path) -> Callable[[Feed], np.ndarray]:
    """Load a file once; each call returns its first output."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    return lambda feed: next(iter(runner(**feed).values()))


def run_exactly(model: onnx.ModelProto, feed: Feed) -> np.ndarray:
    """Return the first output of ONNX Runtime without its optimizer: every rounding as the graph says it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def sqnr_db(exact: np.ndarray, other: np.ndarray) -> float:
    """Return the signal to quantization noise in dB, infinite where both are equal."""
    noise = float(np.sum((exact.astype(np.float64) - other) ** 2))
    return np.inf if noise == 0 else 10 * float(np.log10(np.sum(exact.astype(np.float64) ** 2) / noise))
