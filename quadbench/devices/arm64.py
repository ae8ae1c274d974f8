"""Arm64: QEMU and Debian's libraries for arm64 on this machine -> how a virtual device starts programs for arm64.

The kernel starts them: in the sandbox's own user namespace binfmt_misc names QEMU as the interpreter of such files, so that a
command line there is the one that a phone would be given. This machine's own binfmt_misc is not touched.
"""

import platform
from dataclasses import dataclass
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
