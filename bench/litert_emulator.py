"""A bundle compiled for LiteRT's CPU and for a Qualcomm chip -> what Qualcomm's emulator makes of the contexts in the files.

    python bench/litert_emulator.py CPU_DIR CHIP_DIR [--htp v79]

The folders are compiled bundles, as `quadbench compile` makes them for `litert-cpu-x86_64` and `litert-sm8750`. Of each component
the context is taken out of the .tflite file for the chip, wrapped in an EPContext node and run by onnxruntime-qnn on one draw of
random inputs, and so is the file for the CPU by LiteRT. Prints the SQNR of the first against the second, in dB.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers

from quadbench.compile.qnn import run_on_emulator
from quadbench.quality.metrics import sqnr_db

DTYPES = {0: np.float32, 2: np.int32, 4: np.int64, 7: np.int16}  # by the schema's TensorType
TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True)
class Value:
    """An input or output: its name, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic]

    def drawn(self, rng: np.random.Generator) -> np.ndarray:
        """Random numbers: normal floats, LoRA integers within 3,000, token ids within 900."""
        if self.dtype is np.float32:
            return rng.standard_normal(self.shape).astype(np.float32)
        low, high = (-3000, 3000) if self.dtype is np.int16 else (1, 900)
        return rng.integers(low, high, self.shape).astype(self.dtype)

    def info(self) -> onnx.ValueInfoProto:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        return onnx.helper.make_tensor_value_info(self.name, kind, self.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cpu", type=Path)
    parser.add_argument("chip", type=Path)
    parser.add_argument("--htp", default="v79")
    options = parser.parse_args()
    print("| graph | SQNR, dB |\n|---|---|")  # noqa: T201
    for path in sorted(options.chip.glob("shared/*.tflite")):
        with tempfile.TemporaryDirectory() as folder:
            model, inputs = wrapped(path, Path(folder))
            rng = np.random.default_rng(0)
            feed = {value.name: value.drawn(rng) for value in inputs}
            (emulated,) = run_on_emulator(model, options.htp, [feed], timeout_s=TIMEOUT_S)
        runner = Interpreter(str(options.cpu / "shared" / path.name), num_threads=1).get_signature_runner()
        expected = next(iter(runner(**feed).values()))
        print(f"| {path.stem} | {sqnr_db([expected], [emulated]):.1f} |", flush=True)  # noqa: T201


def wrapped(path: Path, folder: Path) -> tuple[Path, list[Value]]:
    """Write the context of a .tflite file with a single operation, and a graph that runs it; return the graph and its inputs."""
    content = path.read_bytes()
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    operation = graph.Operators(0)
    options = flexbuffers.Loads(bytes(operation.CustomOptionsAsNumpy()))
    start, name = options["bytecode_offset"], options["name"]
    (folder / "context.bin").write_bytes(content[start : start + options["bytecode_size"]])
    inputs, outputs = (list(values(graph, indices)) for indices in (operation.InputsAsNumpy(), operation.OutputsAsNumpy()))
    node = onnx.helper.make_node(
        "EPContext",
        [value.name for value in inputs],
        [value.name for value in outputs],
        name,
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context="context.bin",
        source="QNN",
        partition_name=name,
    )
    infos = ([value.info() for value in side] for side in (inputs, outputs))
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in (("", 21), ("com.microsoft", 1))]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], name, *infos), opset_imports=opsets, ir_version=10)
    onnx.save(model, folder / "context.onnx")
    return folder / "context.onnx", inputs


def values(graph: schema.SubGraph, indices: np.ndarray) -> Iterator[Value]:
    for index in indices:
        tensor = graph.Tensors(index)
        yield Value(name=tensor.Name().decode(), shape=tuple(tensor.ShapeAsNumpy().tolist()), dtype=DTYPES[tensor.Type()])


if __name__ == "__main__":
    main()
