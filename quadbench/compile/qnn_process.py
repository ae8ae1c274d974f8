"""QNN process: a quantized graph, a chip and a path -> an ONNX file that is one context binary for that chip; or exit code 1.

Run as a program of its own, because Qualcomm's library prints to stdout, holds on to memory and may crash.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from quadbench.host import peak_memory_bytes

PROVIDER = "QNNExecutionProvider"
VERBOSE, ERROR = 0, 3  # ONNX Runtime's log severities


def main() -> None:
    """Compile as the arguments say. Errors of ONNX Runtime pass through; the parent reads them from stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("product", type=Path)
    parser.add_argument("--htp-arch", required=True)
    parser.add_argument("--soc-model", required=True)
    parser.add_argument("--explain", action="store_true", help="log why each node was refused")
    arguments = parser.parse_args()
    compile_context(arguments.source, arguments.product, arguments.htp_arch, arguments.soc_model, explain=arguments.explain)
    arguments.product.with_suffix(".json").write_text(json.dumps({"peak_memory_bytes": peak_memory_bytes()}))


def compile_context(source: Path, product: Path, htp_arch: str, soc_model: str, *, explain: bool = False) -> None:
    """Write the context binary. No node is left to the CPU, so that quantizing at the boundary is the NPU's too."""
    import onnxruntime
    import onnxruntime_qnn

    options = onnxruntime.SessionOptions()
    options.log_severity_level = VERBOSE if explain else ERROR
    entries = {
        "session.disable_cpu_ep_fallback": "1",
        "ep.context_enable": "1",
        "ep.context_file_path": str(product),
        "ep.context_embed_mode": "1",  # a device keeps files under their digests, where a second file would be missed
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    chip = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), "htp_arch": htp_arch, "soc_model": soc_model}
    options.add_provider_for_devices(_devices(onnxruntime, onnxruntime_qnn.get_library_path()), chip)
    onnxruntime.InferenceSession(str(source), options)


def _devices(onnxruntime: Any, library: str) -> list[Any]:
    onnxruntime.register_execution_provider_library(PROVIDER, library)
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER][:1]


if __name__ == "__main__":
    main()
