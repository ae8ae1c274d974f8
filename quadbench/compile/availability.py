"""Availability: the version of a target's compiler on this machine, or its missing parts and how to install them."""

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import assert_never

from quadbench.ai_hub.client import CONFIGURE_HINT, INSTALL_HINT, config_path
from quadbench.compile.litert_sdk import look_for_sdk
from quadbench.compile.tflite import INSTALL_HINT as LITERT_HINT
from quadbench.compile.toolchain import installed_version, missing_parts
from quadbench.errors import MissingDependencyError, extra_hint, package_hint
from quadbench.target.targets import AiHubTarget, LiteRtTarget, OnnxRuntimeTarget, QnnTarget, Target, ToolchainTarget


@dataclass(frozen=True, kw_only=True)
class Availability:
    """The state of a compiler on this machine: its `version`, or the `missing` parts and a `hint` on how to get them."""

    version: str | None = None
    missing: str | None = None
    hint: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.missing is None


def availability(target: Target) -> Availability:
    """Return the Availability of a target's compiler: its version or missing parts. Check only local packages and files."""
    match target:
        case OnnxRuntimeTarget():
            return package_availability("onnxruntime", hint=package_hint("onnxruntime"))
        case QnnTarget():
            return package_availability("onnxruntime_qnn", hint=extra_hint("qnn"))
        case LiteRtTarget():
            package = package_availability("ai_edge_litert", hint=LITERT_HINT)
            if target.soc is None or not package.is_ready:
                return package
            try:
                return Availability(version=look_for_sdk(target.soc).version)
            except MissingDependencyError as error:
                return Availability(version=package.version, missing=error.message, hint=error.hint)
        case ToolchainTarget():
            if missing := missing_parts(target):
                return Availability(missing=", ".join(missing), hint=target.install)
            try:
                return Availability(version=installed_version(target))
            except MissingDependencyError as error:
                return Availability(missing=f"a suitable version ({error.message})", hint=error.hint)
        case AiHubTarget():  # only a network request could check the token
            package, path = package_availability("qai_hub", hint=INSTALL_HINT), config_path()
            if package.is_ready and not path.is_file():
                lacking = f"the client's configuration file, '{path}'"
                return Availability(version=package.version, missing=lacking, hint=CONFIGURE_HINT)
            return package
        case _:
            assert_never(target)


def require(target: Target, name: str) -> None:
    """Raise MissingDependencyError if this machine cannot compile for a target. Call this before building for the target.

    Raises:
        MissingDependencyError: a part of the target's compiler is missing.
    """
    available = availability(target)
    if available.missing:
        raise MissingDependencyError(f"compiling for '{name}' needs {available.missing}", hint=available.hint)


def package_availability(module: str, *, hint: str) -> Availability:
    """Return the Availability of a Python package, given its import name, without importing it. `hint` says how to install it."""
    installed = package_version(module)
    if installed is None:
        return Availability(missing=f"the package {module.replace('_', '-')}", hint=hint)
    return Availability(version=installed)


def package_version(module: str) -> str | None:
    """Return the version of a package, given its import name; None if it is not installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return version(module)
    except PackageNotFoundError:
        return "version unknown"
