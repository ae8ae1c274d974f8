"""Stub NDK: a folder with the parts of Android's NDK that CMake looks at, whose compiler writes down how it is called.

It compiles nothing of the harness: what it links is a file that the test has given. Everything else, as CMake's own trials, is
passed on to g++.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_TOOLCHAIN = """\
if(DEFINED ANDROID_ABI)
  foreach(name IN ITEMS ANDROID_ABI ANDROID_PLATFORM ANDROID_STL ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES)
    file(APPEND "@log@" "${name}=${${name}}\\n")
  endforeach()
endif()
set(CMAKE_SYSTEM_NAME Linux)  # with Android CMake would ask for a whole NDK
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER "@compiler@")
"""
_COMPILER = """\
#!/bin/sh
case "$*" in
    *harness.dir* | *-o\\ quadbench-harness*) ;;
    *) exec g++ "$@" ;;
esac
echo "$*" >>"@log@"
case "$*" in *-o\\ quadbench-harness*) cp "@program@" quadbench-harness; exit ;; esac
for word; do
    case "$before" in -o | -MF) : >"$word" ;; esac
    before=$word
done
"""


@dataclass(frozen=True)
class StubNdk:
    """The folder for ANDROID_NDK_HOME, and the file whose copy every build gives."""

    folder: Path
    program: Path

    @property
    def calls(self) -> str:
        """Return what was written down, a line for each variable and each call."""
        return (self.folder / "calls.log").read_text()


def write_stub_ndk(folder: Path) -> StubNdk:
    """Write the stub, which says that it is NDK 27."""
    stub = StubNdk(folder=folder, program=folder / "program")
    compiler = folder / "clang++"
    for place, text in ((folder / "build/cmake/android.toolchain.cmake", _TOOLCHAIN), (compiler, _COMPILER)):
        place.parent.mkdir(parents=True, exist_ok=True)
        for name, value in (("log", folder / "calls.log"), ("compiler", compiler), ("program", stub.program)):
            text = text.replace(f"@{name}@", os.fspath(value))
        place.write_text(text)
    compiler.chmod(0o755)
    (folder / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 27.2.12479018\n")
    return stub
