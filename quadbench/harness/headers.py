"""The C and C++ headers that the harness is compiled with: this machine's, or those of pinned Debian packages."""

import io
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quadbench.errors import ArtifactError
from quadbench.kits.packages import DEBIAN_ARCHIVE, DEBIAN_VARIABLE, DebPackage, fetch_package
from quadbench.results.digests import sha256_of
from quadbench.spec import is_file
from quadbench.spec.variables import paths_variable, web_variable


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

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


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
        try:
            unpacked.rename(place)
        except OSError:
            if not is_file(header):  # another process was not the one that put it there
                raise
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
