"""Emulator: Qualcomm's package on this machine in, the folders of it that a virtual device sees, and where, out."""

from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from quadbench.errors import MissingDependencyError

PACKAGE = "onnxruntime_qnn"
_ON_DEVICE = PurePosixPath("/vendor") / PACKAGE
PLUGIN = str(_ON_DEVICE / "libonnxruntime_providers_qnn.so")
"""ONNX Runtime's plugin, as a virtual device sees it."""
HTP_LIBRARY = str(_ON_DEVICE / "libQnnHtp.so")
"""Qualcomm's library, which emulates the HTP where there is none."""


def emulator_folders() -> dict[Path, str]:
    """Folder here -> folder there. They lie side by side: the package's libraries find those of the other by a relative path.

    Raises: MissingDependencyError.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "Qualcomm's HTP emulator needs the package onnxruntime-qnn", hint="pip install 'quadbench[qnn]', Linux on x86-64"
        )
    package = Path(spec.origin).parent
    further = package.with_name(f"{PACKAGE}.libs")
    return {package: str(_ON_DEVICE), **({further: f"{_ON_DEVICE}.libs"} if further.is_dir() else {})}
