"""CMake: an ABI -> what CMake is told to build the native program for it on this machine, and what identifies the compiler.

This machine's own ABI takes the host's compiler, arm64-linux the compiler of the package ziglang, arm64-v8a Android's NDK.
"""

import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from quadbench.errors import MissingDependencyError, shown
from quadbench.spec import is_file, path_variable, paths_variable, variable
from quadbench.target.abi import Abi, host_abi

HOST_PROGRAMS = {"cmake": "cmake", "make": "make", "g++": "g++"}
"""Programs that a build for this machine needs, with the Debian packages that hold them."""
HEADERS = {
    "ONNXRUNTIME_INCLUDE_DIR": ("onnxruntime", "onnxruntime_c_api.h"),
    "NLOHMANN_JSON_INCLUDE_DIR": ("nlohmann", "json.hpp"),
    "STB_INCLUDE_DIR": ("stb", "stb_image_write.h"),
}
"""Variables of CMakeLists.txt, each with the folder that its header lies in and its name."""
HEADER_PACKAGES = ("libonnxruntime-dev", "nlohmann-json3-dev", "libstb-dev")
NDK_VARIABLE = "ANDROID_NDK_HOME"
NDK_HINT = f"unpack NDK r27 or newer of https://developer.android.com/ndk/downloads and set {NDK_VARIABLE} to its folder"
ZIG_HINT = "pip install ziglang"

_GLIBC = "2.28"  # the oldest that PyPI's onnxruntime for arm64 runs on (manylinux_2_28)
# A Release whatever the environment says, in three compilations of eleven files at most.
_OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=11")
_ABOVE = "NLOHMANN_JSON_INCLUDE_DIR"  # names the folder above the header's own


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The words that configure a build for one ABI. `compiler` names the compiler with its version.

    `has_own_headers` says that the compiler must not see this machine's headers, of which it needs three libraries all the same.
    """

    compiler: str
    arguments: tuple[str, ...]
    has_own_headers: bool


def configuration(abi: Abi) -> Configuration:
    """Return how the program is built for an ABI.

    Raises:
        MissingDependencyError: names the programs, the package or the NDK that is missing, and where to get it.
    """
    if abi is host_abi(platform.machine()):
        require_programs(HOST_PROGRAMS, abi)
        return Configuration(compiler=_host_compiler(), arguments=_OPTIONS, has_own_headers=False)
    require_programs({name: package for name, package in HOST_PROGRAMS.items() if name != "g++"}, abi)
    match abi:
        case Abi.ARM64_LINUX:
            return _zig()
        case Abi.ARM64_V8A:
            return _ndk()
        case Abi.X86_64_LINUX:
            raise MissingDependencyError(f"the harness for {abi} is built on x86_64, and this machine is {platform.machine()}")


def require_programs(programs: Mapping[str, str], abi: Abi) -> None:
    """Refuse to build without programs. They are given with the Debian packages that hold them.

    Raises:
        MissingDependencyError: names all that are missing.
    """
    missing = {program: package for program, package in programs.items() if shutil.which(program) is None}
    if missing:
        raise MissingDependencyError(
            f"to build the harness for {abi}, {', '.join(missing)} must be installed",
            hint=f"apt-get install {' '.join(missing.values())}",
        )


def ndk_revision(folder: Path) -> str | None:
    """Return the NDK's version, as 27.2.12479018, which only its own file says; None where there is no NDK."""
    properties = folder / "source.properties"
    text = properties.read_text(errors="replace") if is_file(properties) else ""
    revision = re.search(r"^Pkg\.Revision\s*=\s*([0-9][0-9.]{0,40})", text, re.MULTILINE)
    return revision[1] if revision else None


def linked_headers(folder: Path) -> tuple[str, ...]:
    """Link the folders of the three libraries' headers into a folder that holds nothing else; return CMake's words for them.

    Raises:
        MissingDependencyError: a library's headers are not installed; names all that are missing.
    """
    missing, words = [], []
    for option, (library, name) in HEADERS.items():
        header = find_header(library, name)
        if header is None:
            missing.append(f"{library}/{name}")
            continue
        (folder / library).symlink_to(header.parent)
        words.append(f"-D{option}={folder if option == _ABOVE else folder / library}")
    if missing:
        raise MissingDependencyError(
            f"to build the harness, headers must be installed: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(HEADER_PACKAGES)}",
        )
    return tuple(words)


def find_header(*parts: str) -> Path | None:
    """Return a header where CMake's `find_path` looks first; None where it lies elsewhere, if at all."""
    prefixes, folders = map(paths_variable, ("CMAKE_PREFIX_PATH", "CMAKE_INCLUDE_PATH"))
    given = [*(prefix / "include" for prefix in prefixes), *folders]
    places = (place.joinpath(*parts) for place in (*given, Path("/usr/local/include"), Path("/usr/include")))
    return next((place for place in places if is_file(place)), None)


def _host_compiler() -> str:
    given = variable("CXX") or "g++"
    try:
        command = [*shlex.split(given), "--version"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:
        raise MissingDependencyError(
            f"to build the harness, a compiler of C++20 must run; {shown(given)} does not: {error}", hint="see: quadbench doctor"
        ) from error
    return (result.stdout.splitlines() or command)[0]


def _zig() -> Configuration:
    spec = find_spec("ziglang")
    try:
        installed = version("ziglang")
    except PackageNotFoundError:
        installed = None
    if installed is None or spec is None or spec.origin is None:
        raise MissingDependencyError(
            f"to build the harness for {Abi.ARM64_LINUX}, the package ziglang must be installed", hint=ZIG_HINT
        )
    compiler = [str(Path(spec.origin).with_name("zig")), "c++", "-target", f"aarch64-linux-gnu.{_GLIBC}"]
    return Configuration(
        compiler=f"zig {installed}, glibc {_GLIBC}",
        arguments=(
            *_OPTIONS,
            "-DCMAKE_SYSTEM_NAME=Linux",
            "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
            f"-DCMAKE_CXX_COMPILER={';'.join(compiler)}",
        ),
        has_own_headers=True,
    )


def _ndk() -> Configuration:
    folder = path_variable(NDK_VARIABLE)
    if folder is None:
        raise MissingDependencyError(
            f"to build the harness for {Abi.ARM64_V8A}, Android's NDK is needed, and {NDK_VARIABLE} is not set", hint=NDK_HINT
        )
    revision = ndk_revision(folder)
    if revision is None or not is_file(folder / "build/cmake/android.toolchain.cmake"):
        raise MissingDependencyError(
            f"{NDK_VARIABLE} is '{folder}', which is no NDK; expected source.properties and build/cmake/android.toolchain.cmake",
            hint=NDK_HINT,
        )
    return Configuration(compiler=f"NDK {revision}", arguments=(*_OPTIONS, "--preset", Abi.ARM64_V8A.value), has_own_headers=True)
