"""Kit files: libraries as an operator would bring them, made up, and archives around them."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

from quadbench.artifacts.kit import Role
from quadbench.kits.kit_compatibility import ENTRY_POINTS
from support.elf_files import HEXAGON, write_elf

RUNTIME, PLUGIN = "libonnxruntime.so", "libonnxruntime_providers_qnn.so"
LITERT, MEDIATEK, QUALCOMM = "libLiteRt.so", "libLiteRtDispatch_MediaTek.so", "libLiteRtDispatch_Qualcomm.so"
STUB, SKEL = "libQnnHtpV79Stub.so", "libQnnHtpV79Skel.so"
BUILD = "2.50.40.260831140417"  # as onnxruntime-qnn 2.6.0 has it
ANDROID = ("libc.so", "libm.so", "libdl.so", "liblog.so")


def write_runtime(folder: Path, **facts: object) -> Path:
    """Write ONNX Runtime's library, version 1.29.0, as it is for Android unless facts say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_elf(folder / RUNTIME, **{"needed": ANDROID, "says": b"\0VERS_1.29.0\0", **facts})


def write_qnn(folder: Path, build: str = BUILD) -> list[Path]:
    """Write everything that Qualcomm's HTP v79 takes, ONNX Runtime included."""
    says = f"v{build}".encode()
    return [
        write_runtime(folder),
        write_elf(folder / PLUGIN, needed=ANDROID),
        write_elf(folder / "libQnnHtp.so", needed=ANDROID, says=says),
        write_elf(folder / "libQnnSystem.so", needed=ANDROID),
        write_elf(folder / STUB, needed=(*ANDROID, "libcdsprpc.so"), says=says),
        write_elf(folder / SKEL, machine=HEXAGON, needed=("libc++.so.1",), alignment=4096, says=says),
    ]


def write_litert(folder: Path, *dispatches: str, **facts: object) -> Path:
    """Write ONNX Runtime's and LiteRT's libraries and dispatch libraries as they are for Android, and return the folder."""
    write_runtime(folder, **facts)
    write_elf(folder / LITERT, **{"needed": ANDROID, "exports": tuple(ENTRY_POINTS[Role.LITERT]), **facts})
    for name in dispatches:
        write_elf(folder / name, **{"needed": ANDROID, "exports": tuple(ENTRY_POINTS[Role.DISPATCH]), **facts})
    return folder


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a zip file, as AARs and wheels are, with members of any names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def write_aar(path: Path, libraries: Iterable[Path], abi: str = "arm64-v8a") -> Path:
    """Write an AAR with libraries of an ABI, and for another one files that are none."""
    own = [(f"jni/{abi}/{library.name}", library.read_bytes()) for library in libraries]
    return write_archive(path, [("AndroidManifest.xml", b"<manifest/>"), *own, ("jni/x86/libonnxruntime.so", b"of another ABI")])
