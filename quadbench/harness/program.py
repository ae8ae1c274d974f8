"""Build the native harness program with CMake for an ABI, once for each version of its sources, and check the result."""

import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quadbench.errors import BuildError, MissingDependencyError, UserError, quote
from quadbench.harness.build_inputs import ZIG, fetched_tools, linked_headers, runtime_header_sha256
from quadbench.host import checkout_commit, find_program, install_hint, kill_group, require_linux, shipped_folder, start_child
from quadbench.kits.elf import read_elf
from quadbench.kits.kit_compatibility import program_problem
from quadbench.spec import is_file, path_variable, variable
from quadbench.target.abi import Abi, host_abi

HOST_PROGRAMS = {"cmake": "cmake", "make": "make", "g++": "g++"}
"""Programs that build for this machine, with their Debian packages. If one is missing, zig, CMake and Ninja are fetched."""
NDK_VARIABLE = "ANDROID_NDK_HOME"
NDK_HINT = f"unpack NDK r27 or newer from https://developer.android.com/ndk/downloads and set {NDK_VARIABLE} to its folder"

_GLIBC = "2.28"  # the oldest glibc that PyPI's onnxruntime supports (manylinux_2_28)
_ZIG_CPU = {Abi.ARM64_LINUX: "aarch64", Abi.X86_64_LINUX: "x86_64"}
# Always a Release build, in three compilations of at most eleven files each.
_OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=11")

PROGRAM = "quadbench-harness"
OVERRIDE = "QUADBENCH_HARNESS"

_FLAGS = ("CXXFLAGS", "LDFLAGS")  # environment variables that CMake uses in every build
_JOBS = 2
_SHOWN_LINES = 15
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """The compiler and CMake arguments to build the harness for one ABI. `compiler` is the compiler's name and version.

    With a `zig_target`, such as `x86_64-linux-gnu.2.28`, the build takes the fetched zig, CMake and Ninja.
    """

    compiler: str
    arguments: tuple[str, ...]
    zig_target: str | None = None


def ensure_harness(build_root: Path, abi: Abi | None = None) -> Path:
    """Return the path of the harness program for an ABI, by default this machine's. Build the program if needed.

    For this machine, QUADBENCH_HARNESS or else an installed program takes precedence. Builds lie in `build_root` under a digest
    of sources, ABI, compiler, flags and ONNX Runtime's header, so that the same build runs once.

    Raises:
        UserError: QUADBENCH_HARNESS does not name an executable file.
        MissingDependencyError: a compiler, cmake or the NDK is missing, or headers could not be fetched; says where to get it.
        BuildError: the build failed, or devices of the ABI cannot start its program.
    """
    abi = abi or host_abi(platform.machine())
    if there := find_harness(build_root, abi):
        return there
    how = build_config(abi)
    built = _place(build_root, abi, how)
    _build(built, abi, how, build_root.resolve() / "fetched")
    return built


def find_harness(build_root: Path, abi: Abi) -> Path | None:
    """Return the path of the harness program for an ABI, or None if the program still has to be built."""
    if abi is host_abi(platform.machine()):
        if named := path_variable(OVERRIDE):
            if not _is_program(named):
                raise UserError(
                    f"{OVERRIDE} is '{named}', which is not an executable file", hint="unset it to build the harness from source"
                )
            return named.resolve()
        if installed := shutil.which(PROGRAM):
            return Path(installed)
    built = _place(build_root, abi, build_config(abi))
    return built if built.exists() else None


def check_harness(program: Path, abi: Abi) -> Path:
    """Return the absolute path of a prebuilt harness; raise UserError if it is not executable or is for another ABI."""
    if not _is_program(program):
        raise UserError(f"the harness '{program}' is not an executable file", hint="build one with: quadbench harness build")
    if problem := program_problem(PROGRAM, read_elf(program, name=str(program), fault=UserError), abi):
        raise UserError(f"the harness '{program}' does not fit {abi}: {problem}", hint=f"quadbench harness build --abi {abi}")
    return program.resolve()


def harness_sources() -> Path:
    """Return the folder of the harness's C++ sources. Raise MissingDependencyError if they are missing."""
    place = shipped_folder("android_harness")
    if not (place / "CMakeLists.txt").is_file():
        hint = f"install quadbench again, or set {OVERRIDE}"
        raise MissingDependencyError(f"the harness's sources are missing; looked in {place}", hint=hint)
    return place


def build_config(abi: Abi) -> BuildConfig:
    """Return the BuildConfig of an ABI: compiler and CMake arguments. Raise MissingDependencyError if build tools are missing."""
    if abi is Abi.ARM64_V8A:
        require_programs({name: package for name, package in HOST_PROGRAMS.items() if name != "g++"}, abi)
        return _ndk()
    if abi is host_abi(platform.machine()):
        require_linux("harnesses for this machine")
        if variable("CXX") or all(map(find_program, HOST_PROGRAMS)):
            require_programs({name: package for name, package in HOST_PROGRAMS.items() if name != "g++"}, abi)
            return BuildConfig(compiler=_host_compiler(), arguments=_OPTIONS)
    cpu = _ZIG_CPU[abi]
    target = f"{cpu}-linux-gnu.{_GLIBC}"
    system = ("-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={cpu}")
    return BuildConfig(compiler=f"{ZIG}, glibc {_GLIBC}", arguments=(*_OPTIONS, *system), zig_target=target)


def require_programs(programs: Mapping[str, str], abi: Abi) -> None:
    """Raise MissingDependencyError if a build program is not installed. `programs` maps program names to Debian packages."""
    missing = {program: package for program, package in programs.items() if shutil.which(program) is None}
    if missing:
        raise MissingDependencyError(
            f"to build the harness for {abi}, {', '.join(missing)} must be installed",
            hint=install_hint(missing.values()),
        )


def ndk_revision(folder: Path) -> str | None:
    """Return the revision of the Android NDK in a folder, such as 27.2.12479018; None if the folder has no NDK."""
    properties = folder / "source.properties"
    text = properties.read_text(errors="replace") if is_file(properties) else ""
    revision = re.search(r"^Pkg\.Revision\s*=\s*([0-9][0-9.]{0,40})", text, re.MULTILINE)
    return revision[1] if revision else None


def _host_compiler() -> str:
    given = variable("CXX") or "g++"
    try:
        command = [*shlex.split(given), "--version"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:
        raise MissingDependencyError(
            f"to build the harness, a C++20 compiler must run; {quote(given)} does not: {error}", hint="see: quadbench doctor"
        ) from error
    return (result.stdout.splitlines() or command)[0]


def _ndk() -> BuildConfig:
    folder = path_variable(NDK_VARIABLE)
    if folder is None:
        raise MissingDependencyError(
            f"to build the harness for {Abi.ARM64_V8A}, Android's NDK is needed, and {NDK_VARIABLE} is not set", hint=NDK_HINT
        )
    revision = ndk_revision(folder)
    if revision is None or not is_file(folder / "build/cmake/android.toolchain.cmake"):
        raise MissingDependencyError(
            f"{NDK_VARIABLE} is '{folder}', which is not an NDK; expected source.properties and"
            " build/cmake/android.toolchain.cmake",
            hint=NDK_HINT,
        )
    return BuildConfig(compiler=f"NDK {revision}", arguments=(*_OPTIONS, "--preset", Abi.ARM64_V8A.value))


def _is_program(path: Path) -> bool:
    return is_file(path) and os.access(path, os.X_OK)


def _place(build_root: Path, abi: Abi, how: BuildConfig) -> Path:
    """Return the path where a built harness lies or will lie. Its folder is named by a digest of all inputs of the build."""
    sources = harness_sources()
    flags = (f"{name}={value}" for name in _FLAGS if (value := variable(name)))
    digest = hashlib.sha256("\n".join((abi, how.compiler, *how.arguments, *flags, runtime_header_sha256())).encode())
    for path in (sources / "CMakeLists.txt", sources / "CMakePresets.json", *sorted((sources / "src").iterdir())):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return build_root.resolve() / digest.hexdigest()[:16] / PROGRAM


def _build(built: Path, abi: Abi, how: BuildConfig, cache: Path) -> None:
    """Build the harness in a temporary folder. Move the program to the path `built` only when it is complete and checked."""
    sources = harness_sources()
    built.parent.mkdir(parents=True, exist_ok=True)
    _logger.info("building the harness of %s for %s with %s", sources, abi, how.compiler)
    with tempfile.TemporaryDirectory(dir=built.parent, prefix=".build-") as temporary:
        folder, headers = Path(temporary, "build"), Path(temporary, "headers")
        headers.mkdir()
        given = linked_headers(headers, cache)
        cmake, generator = _cmake(how, cache)
        configure = [cmake, "-S", str(sources), "-B", str(folder), *generator, "-DBUILD_TESTING=OFF"]
        _run([*configure, *how.arguments, *given, f"-DQUADBENCH_COMMIT={checkout_commit() or 'unknown'}"])
        _run([cmake, "--build", str(folder), "--target", PROGRAM, "--parallel", str(_JOBS)])
        if problem := program_problem(PROGRAM, read_elf(folder / PROGRAM, name=PROGRAM, fault=BuildError), abi):
            raise BuildError(f"{how.compiler} built a harness that does not fit {abi}: {problem}")
        (folder / PROGRAM).replace(built)
    _logger.info("built %s", built)


def _cmake(how: BuildConfig, cache: Path) -> tuple[str, tuple[str, ...]]:
    """Return CMake's program and its arguments that choose the generator and, with a zig target, the compiler."""
    if how.zig_target is None:
        return "cmake", ("-G", "Unix Makefiles")
    tools = fetched_tools(cache)
    compiler = f"-DCMAKE_CXX_COMPILER={tools.zig};c++;-target;{how.zig_target}"
    return str(tools.cmake), ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools.ninja}", compiler)


def _run(command: list[str]) -> None:
    process = start_child(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate()
    except BaseException:  # compilers that CMake started must end too
        kill_group(process.pid)
        process.wait()
        raise
    if process.returncode == 0:
        return
    last = "\n".join(output.decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:])
    raise BuildError(f"'{' '.join(command)}' failed with exit code {process.returncode}:\n{last}")
