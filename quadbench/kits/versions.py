"""Versions: libraries of ONNX Runtime and of Qualcomm's SDK -> the versions that they say in their own bytes."""

import mmap
import re
from importlib.util import find_spec
from pathlib import Path

COMPILER = "onnxruntime-qnn"  # the package that compiles for Qualcomm's HTP on this machine
COMPILER_VERSIONS = {
    "2.47.0.260601114230": "2.3.0",
    "2.48.40.260702151143": "2.4.0",
    "2.49.40.260810104044": "2.5.0",
    "2.50.40.260831140417": "2.6.0",
    "2.51.0.260929181845": "2.7.0",
}
"""Versions of the compiler's package by the build of Qualcomm's SDK in it, read from its wheels for Linux on 2026-11-25."""

_QNN_BUILD = re.compile(rb"v([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{12})(?![0-9])")
_RUNTIME_VERSION = re.compile(rb"\0VERS_([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})\0")  # of its symbols


def qnn_build(library: Path) -> str | None:
    """Return the build of Qualcomm's SDK that a library of it is of, as 2.51.0.260929181845; None where it does not say."""
    return _first(_QNN_BUILD, library)


def runtime_version(library: Path) -> str | None:
    """Return the version of ONNX Runtime's library; None where it does not say."""
    return _first(_RUNTIME_VERSION, library)


def compiler_build() -> str | None:
    """Return the build of Qualcomm's SDK with which this machine compiles; None where its package is not installed."""
    spec = find_spec(COMPILER.replace("-", "_"))
    library = Path(spec.origin).with_name("libQnnHtp.so") if spec and spec.origin else None
    return qnn_build(library) if library and library.is_file() else None


def _first(pattern: re.Pattern[bytes], library: Path) -> str | None:
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        match = pattern.search(content)
        return match[1].decode() if match else None
