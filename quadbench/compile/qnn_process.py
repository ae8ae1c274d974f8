"""QNN process: ONNX Runtime's plugin for Qualcomm HTPs, which compiles a graph to a context binary, or runs one on its emulator.

Both run as a program of their own, because Qualcomm's library prints to stdout, holds on to memory and may crash:
`compile SOURCE PRODUCT --htp-arch ARCH --soc-model MODEL` and `run MODEL FOLDER COUNT --htp-arch ARCH`, which takes
FOLDER/0.npz, ... and writes the first outputs as FOLDER/0.npy, ...
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quadbench.compile.product import run_apart
from quadbench.errors import HarnessError
from quadbench.host import peak_memory_bytes, python_module

PROVIDER = "QNNExecutionProvider"
VERBOSE, ERROR = 0, 3  # ONNX Runtime's log severities


def run_on_emulator(
    model: Path, htp_arch: str, feeds: Sequence[Mapping[str, np.ndarray]], *, timeout_s: float
) -> list[np.ndarray]:
    """Return the first output for each of the feeds, from one session on the library that emulates the chip on this machine.

    Raises:
        HarnessError: the emulator failed, or took too long.
        MissingDependencyError: setpriv is not installed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, feed in enumerate(feeds):
            np.savez(folder / f"{i}.npz", **dict[str, Any](feed))
        chip = ["--htp-arch", htp_arch.removeprefix("v")]
        ending = run_apart(
            python_module(__name__, "run", str(model), name, str(len(feeds)), *chip), folder / "said.log", timeout_s
        )
        if not ending.is_ok:
            raise HarnessError("\n".join((f"the HTP emulator {ending.words} on '{model.name}':", *ending.last_lines)))
        return [np.load(folder / f"{i}.npy") for i in range(len(feeds))]


def main() -> None:
    """Compile or run as the arguments say. Errors of ONNX Runtime pass through; the parent reads them from stderr."""
    parser = argparse.ArgumentParser()
    actions = parser.add_subparsers(dest="action", required=True)
    compiling, running = actions.add_parser("compile"), actions.add_parser("run")
    compiling.add_argument("source", type=Path)
    compiling.add_argument("product", type=Path)
    compiling.add_argument("--soc-model", required=True)
    compiling.add_argument("--explain", action="store_true", help="log why each node was refused")
    running.add_argument("model", type=Path)
    running.add_argument("folder", type=Path)
    running.add_argument("count", type=int)
    for action in (compiling, running):
        action.add_argument("--htp-arch", required=True)
    arguments = parser.parse_args()
    if arguments.action == "run":
        run_context(arguments.model, arguments.htp_arch, arguments.folder, arguments.count)
        return
    compile_context(arguments.source, arguments.product, arguments.htp_arch, arguments.soc_model, explain=arguments.explain)
    arguments.product.with_suffix(".json").write_text(json.dumps({"peak_memory_bytes": peak_memory_bytes()}))


def compile_context(source: Path, product: Path, htp_arch: str, soc_model: str, *, explain: bool = False) -> None:
    """Write the context binary."""
    entries = {
        "ep.context_enable": "1",
        "ep.context_file_path": str(product),
        "ep.context_embed_mode": "1",  # a device keeps files under their digests, where a second file would be missed
    }
    _session(source, entries, {"htp_arch": htp_arch, "soc_model": soc_model}, severity=VERBOSE if explain else ERROR)


def run_context(model: Path, htp_arch: str, folder: Path, count: int) -> None:
    """Run a context binary on the emulator, for each file of inputs."""
    session = _session(model, {}, {"htp_arch": htp_arch})
    for i in range(count):
        with np.load(folder / f"{i}.npz") as inputs:
            np.save(folder / f"{i}.npy", session.run(None, dict(inputs))[0])


def _session(model: Path, entries: Mapping[str, str], chip: Mapping[str, str], *, severity: int | None = None) -> Any:
    """Open a session on the HTP. No node is left to the CPU, so that quantizing at the boundary is the NPU's too."""
    import onnxruntime
    import onnxruntime_qnn

    options = onnxruntime.SessionOptions()
    if severity is not None:
        options.log_severity_level = severity
    for key, value in {"session.disable_cpu_ep_fallback": "1", **entries}.items():
        options.add_session_config_entry(key, value)
    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER][:1]
    options.add_provider_for_devices(devices, {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **chip})
    return onnxruntime.InferenceSession(str(model), options)


if __name__ == "__main__":
    main()
