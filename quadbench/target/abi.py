"""ABIs: the combinations of CPU architecture and operating system that native programs are built for, with their properties."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

_ANDROID_PAGE_BYTES = 16384  # phones with Android 15 or newer may use 16 KB: developer.android.com/guide/practices/page-sizes
_ARM64_LINUX_PAGE_BYTES = 65536  # the largest page of an arm64 kernel; GNU's and LLVM's linkers align to it
_X86_64_PAGE_BYTES = 4096

# The stable libraries of the NDK, which every program may link: developer.android.com/ndk/guides/stable_apis.
_ANDROID_LIBRARIES = (
    "libEGL.so libGLESv1_CM.so libGLESv2.so libGLESv3.so libOpenMAXAL.so libOpenSLES.so libaaudio.so libamidi.so libandroid.so "
    "libbinder_ndk.so libc.so libcamera2ndk.so libdl.so libicu.so libjnigraphics.so liblog.so libm.so libmediandk.so "
    "libnativewindow.so libneuralnetworks.so libstdc++.so libsync.so libvulkan.so libz.so"
)
_CHIP_LIBRARIES = "libcdsprpc.so"  # on devices with Qualcomm chips, usable by all apps: access to the Hexagon processor
_LINUX_LIBRARIES = "libatomic.so.1 libc.so.6 libdl.so.2 libgcc_s.so.1 libm.so.6 libpthread.so.0 librt.so.1 libstdc++.so.6"


class Abi(StrEnum):
    """A CPU architecture and operating system for native programs: `x86_64-linux`, `arm64-linux` or Android's `arm64-v8a`."""

    X86_64_LINUX = "x86_64-linux"
    ARM64_LINUX = "arm64-linux"  # with glibc, as boards have it
    ARM64_V8A = "arm64-v8a"  # Android, with bionic

    @property
    def traits(self) -> "AbiTraits":
        """Return the ABI's CPU name, ELF machine number, C library, loader path, page size in bytes and system library names."""
        match self:
            case Abi.X86_64_LINUX:
                return _linux("x86_64", 62, "ld-linux-x86-64.so.2", "/lib64", _X86_64_PAGE_BYTES)
            case Abi.ARM64_LINUX:
                return _linux("aarch64", 183, "ld-linux-aarch64.so.1", "/lib", _ARM64_LINUX_PAGE_BYTES)
            case Abi.ARM64_V8A:
                return AbiTraits(
                    machine="aarch64",
                    elf_machine=183,
                    libc="libc.so",
                    interpreter="/system/bin/linker64",
                    page_bytes=_ANDROID_PAGE_BYTES,
                    libraries=frozenset(f"{_ANDROID_LIBRARIES} {_CHIP_LIBRARIES}".split()),
                )
            case _:
                assert_never(self)


@dataclass(frozen=True, kw_only=True)
class AbiTraits:
    """Properties of an ABI, such as the page size. `libraries` has the file names of the system's shared libraries."""

    machine: str  # as `uname -m` says
    elf_machine: int  # e_machine in ELF headers
    libc: str
    interpreter: str
    page_bytes: int  # the alignment that ELF segments need
    libraries: frozenset[str]


def host_abi(machine: str) -> Abi:
    """Return the ABI of programs on this Linux machine with glibc, given the output of `uname -m`."""
    return Abi.ARM64_LINUX if machine == Abi.ARM64_LINUX.traits.machine else Abi.X86_64_LINUX


def _linux(machine: str, elf_machine: int, loader: str, folder: str, page_bytes: int) -> AbiTraits:
    return AbiTraits(
        machine=machine,
        elf_machine=elf_machine,
        libc="libc.so.6",
        interpreter=f"{folder}/{loader}",
        page_bytes=page_bytes,
        libraries=frozenset(f"{_LINUX_LIBRARIES} {_CHIP_LIBRARIES} {loader}".split()),
    )


PHONE_ABI = Abi.ARM64_V8A  # every phone with a current Android
PHONE_MACHINE = PHONE_ABI.traits.machine
