"""Emulator: a context binary for a Qualcomm HTP and inputs -> its outputs, by the library that emulates the chip on this machine.

Run as a program of its own, as the compiler is: `MODEL HTP_ARCH FOLDER COUNT` runs FOLDER/0.npz, ... and writes the first outputs
as FOLDER/0.npy, ...
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quadbench.compile.apart import run_apart
from quadbench.compile.qnn_process import PROVIDER
from quadbench.errors import HarnessError
from quadbench.host import python_module


def run_on_emulator(
    model: Path, htp_arch: str, feeds: Sequence[Mapping[str, np.ndarray]], *, timeout_s: float
) -> list[np.ndarray]:
    """Return the first output for each of the feeds, from one session.

    Raises:
        HarnessError: the emulator failed, or took too long.
        MissingDependencyError: setpriv is not installed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, feed in enumerate(feeds):
            np.savez(folder / f"{i}.npz", **dict[str, Any](feed))
        argv = python_module(__name__, str(model), htp_arch.removeprefix("v"), name, str(len(feeds)))
        ending = run_apart(argv, folder / "said.log", timeout_s)
        if not ending.is_ok:
            raise HarnessError("\n".join((f"the HTP emulator {ending.words} on '{model.name}':", *ending.last_lines)))
        return [np.load(folder / f"{i}.npy") for i in range(len(feeds))]


def main(model: str, htp_arch: str, folder: str, count: str) -> None:
    """Run a context binary, as the module's docstring says. No node is left to the CPU."""
    import onnxruntime
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    device = next(device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([device], {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "htp_arch": htp_arch})
    session = onnxruntime.InferenceSession(model, options)
    for i in range(int(count)):
        with np.load(Path(folder) / f"{i}.npz") as inputs:
            np.save(Path(folder) / f"{i}.npy", session.run(None, dict(inputs))[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
