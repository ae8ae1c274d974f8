"""Emulators for virtual devices: QEMU for programs for arm64, and Qualcomm's emulator of its NPU."""

import platform
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from quadbench.errors import MissingDependencyError
from quadbench.host import find_programs
from quadbench.spec import path_variable
from quadbench.target.abi import Abi, host_abi

QEMU = "qemu-aarch64-static"
ROOT_VARIABLE = "QEMU_LD_PREFIX"
_ROOT = "/usr/aarch64-linux-gnu"
_PACKAGES = {
    "ld-linux-aarch64.so.1": "libc6-arm64-cross",
    "libgcc_s.so.1": "libgcc-s1-arm64-cross",
    "libstdc++.so.6": "libstdc++6-arm64-cross",
}

# ELF of 64 bits, little-endian, for aarch64: a program, or one whose place the loader chooses.
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"

# F: the kernel opens the interpreter now. The rule is read as it stands, which not every shell's echo would do.
_REGISTER = """\
refuse() { echo "programs for arm64 need Linux 6.7 or newer, with binfmt_misc in user namespaces" >&2; exit 1; }
mkdir /tmp/binfmt_misc && mount -t binfmt_misc binfmt_misc /tmp/binfmt_misc || refuse
cat >/tmp/binfmt_misc/register <<'RULE' || refuse
RULE_TEXT
RULE
"""

PACKAGE = "onnxruntime_qnn"
ON_DEVICE = f"/vendor/{PACKAGE}"
"""The folder in which a virtual device sees ONNX Runtime's plugin, and Qualcomm's library, which emulates the HTP."""


@dataclass(frozen=True, kw_only=True)
class Arm64Emulator:
    """QEMU on this machine, and the `root` below which it finds the loader and libraries of programs for arm64."""

    qemu: Path
    root: Path

    @property
    def start(self) -> str:
        """Return what a shell of the sandbox runs before all else; it needs the capability to mount."""
        return _REGISTER.replace("RULE_TEXT", f":arm64:M::{_MAGIC}:{_MASK}:{self.qemu}:F")


def arm64_emulator(address: str) -> Arm64Emulator | None:
    """Return what a virtual device needs to run programs for arm64; None where this machine runs them itself.

    Raises:
        MissingDependencyError: names what is not installed.
    """
    if host_abi(platform.machine()) is Abi.ARM64_LINUX:
        return None
    needed_for, root = f"the virtual device '{address}'", path_variable(ROOT_VARIABLE) or Path(_ROOT)
    qemu = find_programs({QEMU: "qemu-user-static"}, needed_for=needed_for)[QEMU]
    missing = {name: package for name, package in _PACKAGES.items() if not (root / "lib" / name).exists()}
    if missing:
        raise MissingDependencyError(
            f"{needed_for} needs {', '.join(missing)} for arm64 in '{root / 'lib'}'",
            hint=f"on Debian: apt-get install {' '.join(missing.values())}; or set {ROOT_VARIABLE} to the folder above lib",
        )
    return Arm64Emulator(qemu=qemu, root=root.resolve())


def emulator_folders() -> dict[Path, str]:
    """Return the package's folders here, each with its place on the device.

    They lie side by side there: the libraries of one find those of the other by a relative path.
    """
    package = _package()
    further = package.with_name(f"{PACKAGE}.libs")
    return {package: ON_DEVICE, **({further: f"{ON_DEVICE}.libs"} if further.is_dir() else {})}


def emulator_libraries() -> dict[str, Path]:
    """Return where a virtual device sees each library of the package, with the file here.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    return {f"{ON_DEVICE}/{library.name}": library for library in sorted(_package().glob("lib*.so"))}


def _package() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "Qualcomm's HTP emulator needs the package onnxruntime-qnn", hint="pip install 'quadbench[qnn]', Linux on x86-64"
        )
    return Path(spec.origin).parent
