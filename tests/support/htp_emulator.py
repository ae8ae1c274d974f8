"""HTP emulator: a graph -> its product by Qualcomm's compiler, and the product's outputs; each in a process of its own.

python htp_emulator.py MODEL.onnx FOLDER COUNT     runs a product on FOLDER/0.npz, ...; the first outputs as FOLDER/0.npy, ...
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from quadbench.artifacts import Component, FileRef, Graph, Variant
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
    with tempfile.TemporaryDirectory() as folder:
        for i, feed in enumerate(feeds):
            np.savez(Path(folder) / f"{i}.npz", **feed)
        command = [sys.executable, __file__, str(model), folder, str(len(feeds))]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
        if ended.returncode:
            raise RuntimeError(f"exit code {ended.returncode}: {ended.stderr[-2000:]}")
        return [np.load(Path(folder) / f"{i}.npy") for i in range(len(feeds))]


def main(model: str, folder: str, count: str) -> None:
    """Run a product on the emulator, as the module's docstring says."""
    import onnxruntime_qnn

    name = "QNNExecutionProvider"
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    device = next(device for device in onnxruntime.get_ep_devices() if device.ep_name == name)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([device], {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "htp_arch": "79"})
    session = onnxruntime.InferenceSession(model, options)
    for i in range(int(count)):
        with np.load(Path(folder) / f"{i}.npz") as inputs:
            np.save(Path(folder) / f"{i}.npy", session.run(None, dict(inputs))[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
