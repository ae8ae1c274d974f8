"""LiteRT SDK: finding a chip vendor's compiler on this machine. If a part is missing, the error says how to install it.

LiteRT's package has a plugin for each vendor; the compiler itself is a library of the vendor's SDK. The SDK packages download the
SDK during installation. If that fails, pip still reports success, and the package is empty.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module  # noqa: TID251  (LiteRT's module for a vendor; none of quadbench's)
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from quadbench.compile.tflite import INSTALL_HINT
from quadbench.errors import MissingDependencyError
from quadbench.target.targets import Vendor, vendor_of

LITERT = "ai-edge-litert"


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """A vendor's SDK installed on this machine: its version as text, and the folder of its compiler library."""

    version: str
    folder: Path


def litert_version() -> str:
    installed = _package_version(LITERT)
    if installed is None:
        raise MissingDependencyError(f"the package {LITERT} is not installed", hint=INSTALL_HINT)
    return installed


def sdk_for(soc: str) -> Sdk:
    """Return the SDK for a chip, or raise an error that names the chip and the missing part."""
    try:
        return look_for_sdk(soc)
    except MissingDependencyError as error:
        raise MissingDependencyError(f"compiling for {soc} needs {error.message}", hint=error.hint) from error


def look_for_sdk(soc: str) -> Sdk:
    """Return the chip vendor's SDK found on this machine. If a part is missing, raise a MissingDependencyError that names it."""
    vendor, installed = vendor_of(soc), _package_version(LITERT)
    if installed is None:
        raise MissingDependencyError(f"the package {LITERT}", hint=INSTALL_HINT)
    models: type[StrEnum] = _target_module(vendor).SocModel
    if soc not in (known := [model.value for model in models if model.value != "ALL"]):
        raise MissingDependencyError(
            f"an {LITERT} that supports {soc}; {installed} supports {', '.join(known)}", hint=f"pip install -U {LITERT}"
        )
    package = vendor.sdk_package
    release = ".".join(_release(installed))
    hint = f"pip install --pre --no-cache-dir '{package}=={release}.*'"
    sdk = _package_version(package)
    if sdk is None and vendor.module == "qualcomm" and (plugin := _package_version("onnxruntime-qnn")):
        return Sdk(version=f"onnxruntime-qnn {plugin}", folder=_folder_of("onnxruntime_qnn"))
    if sdk is None:
        raise MissingDependencyError(f"{vendor.title}'s SDK, the package {package}", hint=hint)
    if _release(sdk) != _release(installed):
        raise MissingDependencyError(f"{package} {release}, the release of {LITERT}; found {sdk}", hint=hint)
    library = next(iter(sorted(_folder_of(vendor.sdk_module).rglob(vendor.library))), None)
    if library is None:
        raise MissingDependencyError(
            f"{vendor.library}, which {package} {sdk} lacks, as its download of the SDK failed", hint=hint
        )
    return Sdk(version=f"{package} {sdk}", folder=library.parent)


def search_path(sdk: Sdk, scratch: Path, environment: Mapping[str, str]) -> str:
    """Return the LD_LIBRARY_PATH with which LiteRT's compiler plugin loads the SDK's libraries. The SDK's folder comes first.

    Qualcomm's plugin opens libQnnLpai.so without calling it, and ONNX Runtime's package lacks that file: a link to another
    library in `scratch` takes its place.
    """
    folders = [str(sdk.folder), environment.get("LD_LIBRARY_PATH", "")]
    stand_in = sdk.folder / "libQnnSystem.so"
    if stand_in.exists() and not (sdk.folder / "libQnnLpai.so").exists():
        (scratch / "libQnnLpai.so").symlink_to(stand_in)
        folders.insert(1, str(scratch))
    return ":".join(filter(None, folders))


def aot_target(vendor: Vendor, soc: str) -> Any:
    """Return the object by which LiteRT's ahead-of-time compilation identifies a target chip."""
    module = _target_module(vendor)
    return module.Target(module.SocModel(soc))


def _target_module(vendor: Vendor) -> Any:
    return import_module(f"ai_edge_litert.aot.vendors.{vendor.module}.target")


def _folder_of(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def _package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _release(text: str) -> list[str]:
    """Return the first two parts of a version, such as 2.3 for 2.3.0. An SDK fits LiteRT if these two parts are equal."""
    return text.split(".")[:2]
