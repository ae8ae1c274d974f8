"""HTP emulator: a graph -> its product by Qualcomm's compiler, and the product's outputs on the emulator."""

import tempfile
from pathlib import Path

import numpy as np
import onnx

from quadbench.artifacts import Component, FileRef, Graph, Variant
from quadbench.compile import qnn
from quadbench.compile.qnn import QnnCompiler

COMPILER = QnnCompiler(htp_arch="v79", soc_model=69)  # Snapdragon 8 Elite


def compiled_by_qnn(source: bytes) -> dict[str, bytes]:
    """Compile a graph to a context binary and the ONNX model that names it, as AI Hub packs them; the CPU gets no node."""
    with tempfile.TemporaryDirectory() as folder:
        file = FileRef(path="model.onnx", sha256="", size_bytes=0)
        graph = Graph(variant=Variant.SHARED, component=Component.UNET, file=file, inputs=(), outputs=())
        compiled = Path(folder) / "compiled"
        compiled.mkdir()
        (Path(folder) / file.path).write_bytes(source)
        COMPILER.compile_all([graph], Path(folder), compiled, lambda _graph: None)
        model = onnx.load(compiled / file.path)
    (node,) = model.graph.node
    attributes = {attribute.name: attribute for attribute in node.attribute}
    context = attributes["ep_cache_context"].s
    attributes["ep_cache_context"].s, attributes["embed_mode"].i = b"model.bin", 0
    return {"model.onnx": model.SerializeToString(), "model.bin": context}


def run_on_emulator(model: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    """Return a product's first output."""
    return run_all_on_emulator(model, [feed], timeout_s=120)[0]


def run_all_on_emulator(model: Path, feeds: list[dict[str, np.ndarray]], *, timeout_s: float) -> list[np.ndarray]:
    """Return the first output for each of the feeds, from one session."""
    return qnn.run_on_emulator(model, COMPILER.htp_arch, feeds, timeout_s=timeout_s)
