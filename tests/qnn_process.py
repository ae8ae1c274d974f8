"""onnxruntime-qnn in a process of its own, since its library prints on stdout: compile a graph, or run a product on the emulator.

python qnn_process.py compile SOURCE.onnx TARGET.onnx     writes TARGET.onnx and its context beside it
python qnn_process.py run MODEL.onnx FEED.npz OUT.npy     the first output
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

OPTIONS = {"htp_arch": "79", "soc_model": "69"}  # Snapdragon 8 Elite


def compiled_by_qnn(source: bytes) -> dict[str, bytes]:
    """A context binary for the NPU beside the ONNX model that names it; nothing is left to the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        graph, model = Path(folder) / "source.onnx", Path(folder) / "compiled" / "model.onnx"
        graph.write_bytes(source)
        model.parent.mkdir()
        _call("compile", graph, model)
        return {path.name: path.read_bytes() for path in model.parent.iterdir()}


def run_on_emulator(model: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    """The first output."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, output = Path(folder) / "feed.npz", Path(folder) / "out.npy"
        np.savez(inputs, **feed)
        _call("run", model, inputs, output)
        return np.load(output)


def _call(*arguments: object) -> None:
    command = [sys.executable, __file__, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])


def _session(model: str, **entries: str) -> onnxruntime.InferenceSession:
    import onnxruntime_qnn

    name = "QNNExecutionProvider"
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    device = next(device for device in onnxruntime.get_ep_devices() if device.ep_name == name)
    library = next(Path(onnxruntime_qnn.__file__).parent.rglob("libQnnHtp.so"))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for key, value in entries.items():
        options.add_session_config_entry(f"ep.{key}", value)
    options.add_provider_for_devices([device], {"backend_path": str(library), **OPTIONS})
    return onnxruntime.InferenceSession(model, options)


def main(mode: str, first: str, second: str, third: str = "") -> None:
    if mode == "compile":
        _session(first, context_enable="1", context_embed_mode="0", context_file_path=second)
    else:
        with np.load(second) as feed:
            np.save(third, _session(first).run(None, dict(feed))[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
