"""Emulator: Qualcomm's package on this machine -> the folders of it that a virtual device sees, and where it sees them."""

from importlib.util import find_spec
from pathlib import Path

from quadbench.errors import MissingDependencyError

PACKAGE = "onnxruntime_qnn"
ON_DEVICE = f"/vendor/{PACKAGE}"
"""The folder in which a virtual device sees ONNX Runtime's plugin, and Qualcomm's library, which emulates the HTP."""


def emulator_folders() -> dict[Path, str]:
    """Return the package's folders here, each with its place on the device.

    They lie side by side there: the libraries of one find those of the other by a relative path.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    package = _package()
    further = package.with_name(f"{PACKAGE}.libs")
    return {package: ON_DEVICE, **({further: f"{ON_DEVICE}.libs"} if further.is_dir() else {})}


def emulator_libraries() -> dict[str, Path]:
    """Return where a virtual device sees each library of the package, with the file here.

    Raises:
        MissingDependencyError: as `emulator_folders`.
    """
    return {f"{ON_DEVICE}/{library.name}": library for library in sorted(_package().glob("lib*.so"))}


def _package() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "Qualcomm's HTP emulator needs the package onnxruntime-qnn", hint="pip install 'quadbench[qnn]', Linux on x86-64"
        )
    return Path(spec.origin).parent
