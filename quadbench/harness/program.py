"""Program: the sources of the native program and an ABI -> its binary, built once and checked."""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from quadbench.errors import BuildError, MissingDependencyError, UserError
from quadbench.harness.cmake import HEADER_PACKAGES, Configuration, configuration, find_header, linked_headers
from quadbench.kits.elf import read_elf
from quadbench.kits.fitness import program_problem
from quadbench.spec import is_file, path_variable, variable
from quadbench.target.abi import Abi, host_abi

PROGRAM = "quadbench-harness"
OVERRIDE = "QUADBENCH_HARNESS"

_FLAGS = ("CXXFLAGS", "LDFLAGS")  # variables that CMake takes into every build
_JOBS = 2
_SHOWN_LINES = 15
_logger = logging.getLogger(__name__)


def ensure_harness(build_root: Path, abi: Abi | None = None) -> Path:
    """Return the harness for an ABI, built of the sources; without one for this machine.

    For this machine it is the one that QUADBENCH_HARNESS names, or else an installed one, where there is any. Builds lie in
    `build_root` under the digest of sources, ABI, compiler, the environment's flags and ONNX Runtime's header, so that the same
    ones are built once.

    Raises:
        UserError: QUADBENCH_HARNESS names no program.
        MissingDependencyError: a compiler, cmake, headers or the NDK are missing; says where to get them.
        BuildError: the build failed, or its program is not one that the ABI's devices can start.
    """
    abi = abi or host_abi(platform.machine())
    if there := built_harness(build_root, abi):
        return there
    how = configuration(abi)
    built = _place(build_root, abi, how)
    _build(built, abi, how)
    return built


def built_harness(build_root: Path, abi: Abi) -> Path | None:
    """Return the harness for an ABI if it is there already; None where it would have to be built.

    Raises:
        UserError, MissingDependencyError: as `ensure_harness`.
    """
    if abi is host_abi(platform.machine()) and (given := _given()):
        return given
    built = _place(build_root, abi, configuration(abi))
    return built if built.exists() else None


def checked_harness(program: Path, abi: Abi) -> Path:
    """Return a harness that was built elsewhere, if devices of an ABI can start it.

    Raises:
        UserError: it is no program, or one for other devices.
    """
    if not is_file(program) or not os.access(program, os.X_OK):
        raise UserError(f"the harness '{program}' is no program", hint="name a file that quadbench harness build made")
    if problem := program_problem(PROGRAM, read_elf(program, name=str(program), fault=UserError), abi):
        raise UserError(f"the harness '{program}' does not fit {abi}: {problem}", hint=f"quadbench harness build --abi {abi}")
    return program.resolve()


def harness_sources() -> Path:
    """Return the folder `android_harness`: beside the package in a checkout, below the environment's `share` with a wheel.

    Raises:
        MissingDependencyError: it is in neither place.
    """
    places = (
        Path(__file__).resolve().parents[2] / "android_harness",
        Path(sysconfig.get_path("data")) / "share" / "quadbench" / "android_harness",
    )
    for place in places:
        if (place / "CMakeLists.txt").is_file():
            return place
    looked = " and ".join(str(place) for place in places)
    raise MissingDependencyError(
        f"the harness's sources are missing; looked in {looked}", hint=f"install quadbench again, or set {OVERRIDE}"
    )


def _given() -> Path | None:
    """Return the program that QUADBENCH_HARNESS names, or an installed one."""
    named = path_variable(OVERRIDE)
    if named:
        return _checked(named)
    installed = shutil.which(PROGRAM)
    return Path(installed) if installed else None


def _checked(program: Path) -> Path:
    if is_file(program) and os.access(program, os.X_OK):
        return program.resolve()
    raise UserError(f"{OVERRIDE} is '{program}', which is no program", hint="unset it to build the harness of its sources")


def _runtime_header() -> Path | None:
    """Return the header of ONNX Runtime that a build is given; None where only CMake may find it, if at all."""
    name = "onnxruntime_c_api.h"
    return find_header("onnxruntime", name) or find_header(name)


def _place(build_root: Path, abi: Abi, how: Configuration) -> Path:
    """Return where a build lies: under the digest of names and contents of files, the ABI, and the compiler with all options."""
    sources, header = harness_sources(), _runtime_header()
    flags = (f"{name}={value}" for name in _FLAGS if (value := variable(name)))
    digest = hashlib.sha256("\n".join((abi, how.compiler, *how.arguments, *flags)).encode())
    headers = [header] if header else []
    for path in (sources / "CMakeLists.txt", sources / "CMakePresets.json", *headers, *sorted((sources / "src").iterdir())):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return build_root.resolve() / digest.hexdigest()[:16] / PROGRAM


def _build(built: Path, abi: Abi, how: Configuration) -> None:
    """Build in a temporary folder and move the program to `built`, complete and checked or not at all."""
    sources, header = harness_sources(), _runtime_header()
    built.parent.mkdir(parents=True, exist_ok=True)
    _logger.info("building the harness of %s for %s with %s", sources, abi, how.compiler)
    with tempfile.TemporaryDirectory(dir=built.parent, prefix=".build-") as temporary:
        folder, headers = Path(temporary, "build"), Path(temporary, "headers")
        headers.mkdir()
        if how.has_own_headers:
            given = linked_headers(headers)
        else:
            given = (f"-DONNXRUNTIME_INCLUDE_DIR={header.parent}",) if header else ()
        configure = ["cmake", "-S", str(sources), "-B", str(folder), "-G", "Unix Makefiles", "-DBUILD_TESTING=OFF"]
        _run([*configure, *how.arguments, *given, f"-DQUADBENCH_COMMIT={_commit(sources)}"])
        _run(["cmake", "--build", str(folder), "--target", PROGRAM, "--parallel", str(_JOBS)])
        _check(folder / PROGRAM, abi, how)
        (folder / PROGRAM).replace(built)
    _logger.info("built %s", built)


def _check(program: Path, abi: Abi, how: Configuration) -> None:
    """Refuse a program that the ABI's devices could not start."""
    if problem := program_problem(PROGRAM, read_elf(program, name=PROGRAM, fault=BuildError), abi):
        raise BuildError(f"{how.compiler} built a harness that does not fit {abi}: {problem}")


def _run(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode == 0:
        return
    last = "\n".join(result.stdout.strip().splitlines()[-_SHOWN_LINES:])
    if "_INCLUDE_DIR not found" in result.stdout:
        raise MissingDependencyError(
            f"to build the harness, headers must be installed:\n{last}", hint=f"apt-get install {' '.join(HEADER_PACKAGES)}"
        )
    raise BuildError(f"'{' '.join(command)}' failed with exit code {result.returncode}:\n{last}")


def _commit(sources: Path) -> str:
    """Return the checkout's commit, with `-dirty` where its files were changed; `unknown` outside a checkout."""
    command = ["git", "-C", str(sources), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return result.stdout.strip() if result.returncode == 0 and result.stdout.strip() else "unknown"
