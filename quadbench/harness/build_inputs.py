"""Inputs of a build of the harness: headers and, where the machine has none, a compiler, CMake and Ninja.

What is not installed is fetched without root: headers from pinned Debian packages, the tools from pinned wheels.
"""

import hashlib
import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts.safe_text import one_line
from quadbench.errors import ArtifactError, MissingDependencyError
from quadbench.host import install_hint, python_module
from quadbench.kits.packages import DEBIAN_ARCHIVE, DEBIAN_VARIABLE, DebPackage, fetch_package
from quadbench.results.digests import sha256_of
from quadbench.spec import is_file
from quadbench.spec.variables import mask_urls_in, paths_variable, web_variable


@dataclass(frozen=True, kw_only=True)
class HeaderLibrary:
    """A header-only use of a library. `option` is the variable of CMakeLists.txt; `folder` and `header` name its main header.

    `option` takes the folder of the header; with `is_above`, its parent.
    """

    option: str
    folder: str
    header: str
    package: DebPackage
    is_above: bool = False


RUNTIME = HeaderLibrary(
    option="ONNXRUNTIME_INCLUDE_DIR",
    folder="onnxruntime",
    header="onnxruntime_c_api.h",
    package=DebPackage(
        path="pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb",
        sha256="14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08",
        licence="MIT",
    ),
)
LIBRARIES = (
    RUNTIME,
    HeaderLibrary(
        option="NLOHMANN_JSON_INCLUDE_DIR",
        folder="nlohmann",
        header="json.hpp",
        package=DebPackage(
            path="pool/main/n/nlohmann-json3/nlohmann-json3-dev_3.11.3-2.1_all.deb",
            sha256="741a6a32f61a14eaf9560ba1814b27da8e78fa3b9bed9e8867ab46316ddf3793",
            licence="MIT",
        ),
        is_above=True,
    ),
    HeaderLibrary(
        option="STB_INCLUDE_DIR",
        folder="stb",
        header="stb_image_write.h",
        package=DebPackage(
            path="pool/main/libs/libstb/libstb-dev_0.0~git20241109.5c20573+ds-1_amd64.deb",
            sha256="36fbe0c268c76daa655180ea3c9933afc41c6449ec5e53ef3d4907b516147650",
            licence="MIT or public domain",
        ),
    ),
)
"""The libraries, with the packages of Debian 13, of 2026-11-28. Headers do not depend on a CPU, so amd64's serve every ABI."""

_WHEELS = {
    "ziglang==0.17.1": (
        "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54",
        "b7c5f02fccd40f89b999ee16a1f5ddced56e6182370f8affe494bcf8a28cf07e",
    ),
    "cmake==4.4.5": (
        "85625a9b6d5e88ff99c7eb79123d85570844e77ac076366cf75c609cc0b1b579",
        "25fc8469e67857124ef10c002331c0ab416eb7b8d9e1d6e4c58e84e730013ece",
    ),
    "ninja==1.13.2": (
        "65a24341b5ac09fcadcc37082660be40a94174e51a937fabf6e2cae26225fa2c",
        "d775a5e43e9088f507a6250d57fcf5678eb31268c545feb5064ffeee33735622",
    ),
}
"""PyPI's wheels of the tools, with the SHA-256 of those for Linux on x86-64 and on arm64. Together 131 MB, unpacked 500 MB."""
ZIG = next(iter(_WHEELS)).replace("lang==", " ")

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60
_MOST_REASON = 600  # characters of what pip says


def linked_headers(folder: Path, cache: Path) -> tuple[str, ...]:
    """Symlink the libraries' headers into an empty folder. Return a tuple of CMake `-D` options.

    Headers that are not installed are fetched from the Debian archive at QUADBENCH_DEBIAN once, and kept in the folder `cache`.

    Raises:
        MissingDependencyError: a package could not be fetched.
        ArtifactError: a package is not the pinned one.
    """
    options = []
    for library in LIBRARIES:
        header = _installed(library) or _fetched(library, cache)
        (folder / library.folder).symlink_to(header.parent.resolve())
        options.append(f"-D{library.option}={folder if library.is_above else folder / library.folder}")
    return tuple(options)


def runtime_header_sha256() -> str:
    """Return the SHA-256 of this machine's ONNX Runtime header, or of the package that would be fetched in its place."""
    header = _installed(RUNTIME)
    return sha256_of(header) if header else RUNTIME.package.sha256


def find_header(*parts: str) -> Path | None:
    """Return a header's path, or None. Search CMAKE_PREFIX_PATH, CMAKE_INCLUDE_PATH, /usr/local/include and /usr/include."""
    prefixes, folders = map(paths_variable, ("CMAKE_PREFIX_PATH", "CMAKE_INCLUDE_PATH"))
    given = [*(prefix / "include" for prefix in prefixes), *folders]
    places = (place.joinpath(*parts) for place in (*given, Path("/usr/local/include"), Path("/usr/include")))
    return next((place for place in places if is_file(place)), None)


@dataclass(frozen=True, kw_only=True)
class FetchedTools:
    """The paths of the tools that were fetched."""

    zig: Path
    cmake: Path
    ninja: Path


def fetched_tools(cache: Path) -> FetchedTools:
    """Return the paths of zig, CMake and Ninja in the folder `cache`. pip fetches their pinned wheels the first time.

    Raises:
        MissingDependencyError: pip is not installed, or could not fetch a wheel with a pinned SHA-256.
    """
    pins = "".join(f"{name} {' '.join(f'--hash=sha256:{sha256}' for sha256 in hashes)}\n" for name, hashes in _WHEELS.items())
    place = cache / f"tools-{hashlib.sha256(pins.encode()).hexdigest()[:16]}"
    tools = FetchedTools(zig=place / "ziglang/zig", cmake=place / "cmake/data/bin/cmake", ninja=place / "bin/ninja")
    if place.is_dir():
        return tools
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as temporary:
        (requirements := Path(temporary, "tools.txt")).write_text(pins)
        options = (
            "--quiet",
            "--disable-pip-version-check",
            "--no-compile",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        )
        target = Path(temporary, "tools")
        command = python_module("pip", "install", *options, "--target", str(target), "--requirement", str(requirements))
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if result.returncode:
            reason = one_line(mask_urls_in(result.stderr.strip())[-_MOST_REASON:])
            raise MissingDependencyError(
                f"this machine has no C++ compiler or CMake, and pip could not fetch {', '.join(_WHEELS)}: {reason}",
                hint=f"check the network connection, or {install_hint(['cmake', 'make', 'g++'])}",
            )
        _publish(target, place)
    return tools


def _publish(unpacked: Path, place: Path) -> None:
    """Rename a complete folder to its place, unless another process has put one there meanwhile."""
    try:
        unpacked.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _installed(library: HeaderLibrary) -> Path | None:
    """Return the path of a library's main header on this machine, in its own folder or, as in vendors' archives, in none."""
    return find_header(library.folder, library.header) or find_header(library.header)


def _fetched(library: HeaderLibrary, cache: Path) -> Path:
    """Return the path of a library's main header in the cache; fetch the package if it is not there."""
    place = cache / library.package.sha256[:16]
    header = place / library.folder / library.header
    if is_file(header):
        return header
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as temporary:
        downloads, unpacked = Path(temporary, "downloads"), Path(temporary, "unpacked")
        downloads.mkdir()
        archive = web_variable(DEBIAN_VARIABLE) or DEBIAN_ARCHIVE
        _unpack(fetch_package(library.package, downloads, archive=archive), library.folder, unpacked)
        if not is_file(unpacked / library.folder / library.header):
            raise ArtifactError(f"'{library.package.name}' has no header {library.folder}/{library.header}")
        _publish(unpacked, place)
    return header


def _unpack(package: Path, library: str, folder: Path) -> None:
    """Copy a Debian package's regular files below usr/include/LIBRARY into a folder, beneath the library's name."""
    start = f"./usr/include/{library}/"
    with tarfile.open(fileobj=io.BytesIO(_ar_member(package.read_bytes(), "data.tar.xz")), mode="r:xz") as files:
        for member in files:
            content = files.extractfile(member) if member.isreg() and member.name.startswith(start) else None
            if content is None or ".." in member.name:
                continue
            place = folder / library / member.name.removeprefix(start)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.read())


def _ar_member(archive: bytes, name: str) -> bytes:
    """Return one file of an ar archive; raise ArtifactError if it has none of this name."""
    position = len(_AR_MAGIC)
    while archive.startswith(_AR_MAGIC) and position + _AR_HEADER_BYTES <= len(archive):
        header = archive[position : position + _AR_HEADER_BYTES]
        start, size = position + _AR_HEADER_BYTES, int(header[48:58])
        if header[:16].rstrip(b" /") == name.encode():
            return archive[start : start + size]
        position = start + size + size % 2
    raise ArtifactError(f"the Debian package has no '{name}'")
