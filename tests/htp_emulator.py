"""A compiled graph and its inputs -> what Qualcomm's HTP emulator computes; run in a process of its own, since it may crash."""

import subprocess
import sys
from pathlib import Path

import numpy as np

TIMEOUT_S = 1200


def emulated(compiled: Path, feeds: list[dict[str, np.ndarray]], folder: Path) -> list[np.ndarray]:
    """The first output for each of the feeds, from one session."""
    for i, feed in enumerate(feeds):
        np.savez(folder / f"{i}.in.npz", **feed)
    argv = [sys.executable, __file__, str(compiled), str(folder), str(len(feeds))]
    subprocess.run(argv, check=True, timeout=TIMEOUT_S, stdout=subprocess.PIPE)
    return [np.load(folder / f"{i}.out.npy") for i in range(len(feeds))]


def _main(compiled: str, folder: Path, count: int) -> None:
    import onnxruntime
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library("QNNExecutionProvider", onnxruntime_qnn.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == "QNNExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path()})
    session = onnxruntime.InferenceSession(compiled, options)
    for i in range(count):
        with np.load(folder / f"{i}.in.npz") as feed:
            np.save(folder / f"{i}.out.npy", session.run(None, dict(feed))[0])


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
