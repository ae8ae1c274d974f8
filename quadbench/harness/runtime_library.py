"""Find this machine's ONNX Runtime and LiteRT libraries. EXACT is the session option that keeps MatMul inputs in float32."""

import importlib.util
from pathlib import Path

from quadbench.errors import MissingDependencyError, extra_hint, package_hint

# A config entry of every session, on devices (ort_session.cpp) and here. By default ONNX Runtime fuses a MatMul with INT8
# weights into one that rounds its input to 8 bits, whatever the graph says. 1 means float32.
EXACT = ("session.qdq_matmulnbits_accuracy_level", "1")
LITERT_LIBRARY = "libLiteRt.so"


def runtime_library() -> Path:
    """Return the path of ONNX Runtime's shared library in the installed package onnxruntime, without importing it."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("onnxruntime is not installed", hint=package_hint("onnxruntime"))
    folder = Path(spec.origin).parent / "capi"
    libraries = sorted(folder.glob("libonnxruntime.so*"))
    if not libraries:
        raise MissingDependencyError(f"'{folder}' has no libonnxruntime.so", hint="install a wheel of onnxruntime 1.22 or newer")
    return libraries[0].resolve()


def litert_library() -> Path:
    """Return the path of LiteRT's shared library in the installed package ai_edge_litert, without importing it."""
    spec = importlib.util.find_spec("ai_edge_litert")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("ai-edge-litert is not installed", hint=extra_hint("litert"))
    library = Path(spec.origin).parent / LITERT_LIBRARY
    if not library.is_file():
        raise MissingDependencyError(f"'{library.parent}' has no {LITERT_LIBRARY}", hint=extra_hint("litert"))
    return library
