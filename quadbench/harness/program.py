"""Program: the sources of the native program -> its binary for this machine, built once."""

import hashlib
import logging
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from quadbench.errors import BuildError, MissingDependencyError, UserError

PROGRAM = "quadbench-harness"
OVERRIDE = "QUADBENCH_HARNESS"
BUILD_PROGRAMS = {"cmake": "cmake", "make": "make", "g++": "g++"}
"""Programs that a build needs, with the Debian packages that hold them."""
HEADER_PACKAGES = ("libonnxruntime-dev", "nlohmann-json3-dev", "libstb-dev")

_RUNTIME_HEADER = "onnxruntime_c_api.h"
_JOBS = 2
_UNITY = ("-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=11")  # one compilation per job
_SHOWN_LINES = 15
_logger = logging.getLogger(__name__)


def ensure_harness(build_root: Path) -> Path:
    """Return the harness for this machine: the one that QUADBENCH_HARNESS names, an installed one, or one built of the sources.

    Builds lie in `build_root` under the digest of the sources and of ONNX Runtime's header, so that the same ones are built once.

    Raises:
        UserError: QUADBENCH_HARNESS names no program.
        MissingDependencyError: a compiler, cmake or headers are missing; names the Debian packages.
        BuildError: the build failed; holds the last lines of its output.
    """
    named = os.environ.get(OVERRIDE)
    if named:
        return _checked(Path(named))
    installed = shutil.which(PROGRAM)
    if installed:
        return Path(installed)
    sources = harness_sources()
    header = _runtime_header()
    built = build_root.resolve() / _digest(sources, header) / PROGRAM
    if not built.exists():
        _build(sources, header, built)
    return built


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


def _checked(program: Path) -> Path:
    if program.is_file() and os.access(program, os.X_OK):
        return program.resolve()
    raise UserError(f"{OVERRIDE} is '{program}', which is no program", hint="unset it to build the harness of its sources")


def _runtime_header() -> Path | None:
    """Return the header of ONNX Runtime that a build is given; None where it lies where only CMake may find it, if at all.

    The places are those that CMake's `find_path` looks in first.
    """
    prefixes, folders = (os.environ.get(name, "").split(os.pathsep) for name in ("CMAKE_PREFIX_PATH", "CMAKE_INCLUDE_PATH"))
    given = [*(f"{prefix}/include" for prefix in prefixes if prefix), *(folder for folder in folders if folder)]
    places = [*given, "/usr/local/include", "/usr/include"]
    headers = (Path(place, below, _RUNTIME_HEADER) for place in places for below in ("onnxruntime", ""))
    return next((header for header in headers if header.is_file()), None)


def _digest(sources: Path, header: Path | None) -> str:
    """Return the digest of the names and contents of the sources and of ONNX Runtime's header."""
    digest = hashlib.sha256()
    headers = [header] if header else []
    for path in (sources / "CMakeLists.txt", *headers, *sorted((sources / "src").iterdir())):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _build(sources: Path, header: Path | None, built: Path) -> None:
    """Build in a temporary folder and move the program to `built`, complete or not at all."""
    missing = {program: package for program, package in BUILD_PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        raise MissingDependencyError(
            f"to build the harness, {', '.join(missing)} must be installed", hint=f"apt-get install {' '.join(missing.values())}"
        )
    built.parent.mkdir(parents=True, exist_ok=True)
    _logger.info("building the harness of %s", sources)
    with tempfile.TemporaryDirectory(dir=built.parent, prefix=".build-") as folder:
        configure = ["cmake", "-S", str(sources), "-B", folder, "-G", "Unix Makefiles", "-DBUILD_TESTING=OFF", *_UNITY]
        given = [f"-DONNXRUNTIME_INCLUDE_DIR={header.parent}"] if header else []
        _run([*configure, *given, f"-DQUADBENCH_COMMIT={_commit(sources)}"])
        _run(["cmake", "--build", folder, "--target", PROGRAM, "--parallel", str(_JOBS)])
        (Path(folder) / PROGRAM).replace(built)
    _logger.info("built %s", built)


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
