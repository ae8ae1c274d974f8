"""Availability: a target -> whether this machine can compile for it, and what to install where it cannot."""

import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import assert_never

from quadbench.ai_hub.client import INSTALL_HINT
from quadbench.ai_hub.problems import CONFIGURE_HINT, config_path
from quadbench.compile.toolchain import installed_version, missing_parts
from quadbench.errors import MissingDependencyError
from quadbench.target.targets import AiHubTarget, OnnxRuntimeTarget, QnnTarget, Target
from quadbench.target.toolchain import ToolchainTarget


@dataclass(frozen=True, kw_only=True)
class Availability:
    """`version` of what would compile, or what is `missing` and, as `hint`, what to do about it."""

    version: str | None = None
    missing: str | None = None
    hint: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.missing is None


def availability(target: Target) -> Availability:
    """Whether a target can be compiled for here. Looks at this machine only; nothing goes over a network."""
    match target:
        case OnnxRuntimeTarget():
            return package_availability("onnxruntime", hint="pip install onnxruntime")
        case QnnTarget():
            return package_availability("onnxruntime_qnn", hint="pip install 'quadbench[qnn]'")
        case ToolchainTarget():
            return _toolchain_availability(target)
        case AiHubTarget():
            return _ai_hub()
        case _:
            assert_never(target)


def require(target: Target, name: str) -> None:
    """Refuse before anything is built what could not be compiled then. Raises: MissingDependencyError."""
    found = availability(target)
    if found.missing:
        raise MissingDependencyError(f"compiling for '{name}' needs {found.missing}", hint=found.hint)


def _toolchain_availability(target: ToolchainTarget) -> Availability:
    if missing := missing_parts(target):
        return Availability(missing=", ".join(missing), hint=target.install)
    try:
        return Availability(version=installed_version(target))
    except MissingDependencyError as error:
        return Availability(missing=f"a version that will do ({error.message})", hint=error.hint)


def _ai_hub() -> Availability:
    """Configured is what can be seen without asking the service; whether it takes the token shows when it is used."""
    package, path = package_availability("qai_hub", hint=INSTALL_HINT), config_path()
    if package.is_ready and not path.is_file():
        return Availability(version=package.version, missing=f"the client's configuration, '{path}'", hint=CONFIGURE_HINT)
    return package


def package_availability(module: str, *, hint: str) -> Availability:
    """Of an installed Python package, which is not imported for it."""
    found = package_version(module)
    return Availability(version=found) if found else Availability(missing=f"the package {module.replace('_', '-')}", hint=hint)


def package_version(module: str) -> str | None:
    """The version of an installed package, by the name it is imported by; None where it is not installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return version(module)
    except PackageNotFoundError:
        return "version unknown"
