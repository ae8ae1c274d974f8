"""Packages with a known SHA-256: npm packages fetched with npm, PyPI wheels with pip, AARs and Debian packages by HTTP."""

import re
import subprocess
import tarfile
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar, assert_never
from urllib.parse import unquote, urlsplit

from quadbench.artifacts.kit import Origin
from quadbench.artifacts.safe_text import check_sha256, one_line
from quadbench.errors import ArtifactError, MissingDependencyError, UnknownNameError, UserError, quote
from quadbench.host import find_program, install_hint, python_module
from quadbench.results.digests import sha256_of
from quadbench.spec.variables import mask_urls_in
from quadbench.target.abi import Abi

MAVEN_VARIABLE = "QUADBENCH_MAVEN"
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
DEBIAN_VARIABLE = "QUADBENCH_DEBIAN"
DEBIAN_ARCHIVE = "https://deb.debian.org/debian"
MAX_BYTES = 2**30
_CLIENT_TIMEOUT_S = 1800.0
_REQUEST_TIMEOUT_S = 60.0
_COPY_BYTES = 2**20
_MAVEN = re.compile(r"([\w.-]{1,100}):(\w[\w.-]{0,99}):([\w.-]{1,40})#sha256=(.{1,100})", re.ASCII)
_NETWORK_HINT = "check the network connection, or download the file yourself and pass it to: quadbench runtime add"
_DEBIAN_HINT = f"check the network connection, set {DEBIAN_VARIABLE} to a mirror of {DEBIAN_ARCHIVE}, or install the package"


@dataclass(frozen=True, kw_only=True)
class _RegistryPackage:
    """A package on npm or PyPI, by name and version. `form` is the format string of its displayed name, such as `PyPI {}=={}`."""

    form: ClassVar[str]
    name: str
    version: str
    sha256: str
    licence: str

    @property
    def origin(self) -> Origin:
        """Return the package's displayed name, SHA-256 and licence as an Origin, an entry in a runtime kit's manifest."""
        return Origin(name=self.form.format(self.name, self.version), sha256=self.sha256, licence=self.licence)


@dataclass(frozen=True, kw_only=True)
class NpmPackage(_RegistryPackage):
    """An npm package from which one file is taken. `member` is the file's path in the package."""

    form = "npm {}@{}"
    member: str


@dataclass(frozen=True, kw_only=True)
class PipPackage(_RegistryPackage):
    """A wheel on PyPI. `python` is its Python version, such as 3.11. `platform` is its tag, such as `manylinux_2_28_aarch64`."""

    form = "PyPI {}=={}"
    python: str
    platform: str


@dataclass(frozen=True, kw_only=True)
class MavenPackage:
    """An AAR (Android library) in a Maven repository, identified by group, artifact, version and known SHA-256."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def origin(self) -> Origin:
        """Return the package's Maven coordinates and SHA-256 as an Origin for a runtime kit's manifest. Its `licence` is None."""
        return Origin(name=f"Maven {self.group}:{self.artifact}:{self.version}", sha256=self.sha256)

    @property
    def path(self) -> str:
        """Return the AAR's path relative to a Maven repository's base URL, such as `org/lib/1.0/lib-1.0.aar`."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.artifact}-{self.version}.aar"


@dataclass(frozen=True, kw_only=True)
class DebPackage:
    """A Debian package (.deb) to download: its path in Debian's archive, the SHA-256 that it must have, and its licence."""

    path: str
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        """Return the package's file name, such as `libstb-dev_1-1_all.deb`."""
        return self.path.rpartition("/")[2]

    @property
    def origin(self) -> Origin:
        """Return the package's displayed name, SHA-256 and licence as an Origin."""
        return Origin(name=f"Debian {self.name}", sha256=self.sha256, licence=self.licence)


Package = NpmPackage | PipPackage | MavenPackage | DebPackage


@dataclass(frozen=True, kw_only=True)
class PinnedPackage:
    """An npm, PyPI or Maven package with a known SHA-256. `abi` is the ABI of the devices that its libraries run on."""

    abi: Abi
    package: Package


PINS = {
    "onnxruntime-android": PinnedPackage(
        abi=Abi.ARM64_V8A,
        package=NpmPackage(
            name="com.github.asus4.onnxruntime",
            version="0.4.9",
            sha256="e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d",
            licence="MIT",
            member="package/Plugins/Android/onnxruntime.aar",
        ),
    ),
    "onnxruntime-linux": PinnedPackage(
        abi=Abi.ARM64_LINUX,
        package=PipPackage(
            name="onnxruntime",
            version="1.32.0",
            sha256="2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
            licence="MIT",
            python="3.11",
            platform="manylinux_2_28_aarch64",
        ),
    ),
    "litert-linux": PinnedPackage(
        abi=Abi.ARM64_LINUX,
        package=PipPackage(
            name="ai-edge-litert",
            version="2.3.0",
            sha256="853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae",
            licence="Apache-2.0",
            python="3.11",
            platform="manylinux_2_27_aarch64",
        ),
    ),
}
"""Pinned packages by name, checked on 2026-11-26. LiteRT alone makes no kit, as float graphs need ONNX Runtime."""


def find_pin(text: str) -> PinnedPackage:
    """Return the PinnedPackage that `text` describes: a name in PINS, or a Maven AAR as `GROUP:ARTIFACT:VERSION#sha256=HEX`.

    Raises:
        UnknownNameError: no pinned package has this name.
        UserError: the text is not a Maven package with a SHA-256.
    """
    if ":" not in text:
        if text not in PINS:
            raise UnknownNameError("package", text, PINS)
        return PINS[text]
    match = _MAVEN.fullmatch(text)
    try:
        if match is None or ".." in text:
            raise ValueError("expected GROUP:ARTIFACT:VERSION#sha256=HEX")
        package = MavenPackage(group=match[1], artifact=match[2], version=match[3], sha256=check_sha256(match[4]))
    except ValueError as error:
        hint = "take the SHA-256 from the file with the suffix .sha256 beside the AAR in the Maven repository"
        raise UserError(f"{quote(text)} is not a package: {error}", hint=hint) from error
    return PinnedPackage(abi=Abi.ARM64_V8A, package=package)


def fetch_package(package: Package, folder: Path, *, archive: str = "") -> Path:
    """Download a package into an empty folder, and check its SHA-256. Return the path of its wheel, AAR or Debian package.

    `archive` is the base URL of the Maven repository, or of Debian's archive. npm and pip use their own settings.
    """
    match package:
        case NpmPackage():
            _run(["npm", "pack", f"{package.name}@{package.version}", "--pack-destination", str(folder)], package)
            return _extracted(_require_pinned(folder, package), package.member, folder)
        case PipPackage():
            where = ["--python-version", package.python, "--platform", package.platform, "--dest", str(folder)]
            pip = python_module("pip", "download", "--no-deps", "--only-binary", ":all:")
            _run([*pip, *where, f"{package.name}=={package.version}"], package)
            return _require_pinned(folder, package)
        case MavenPackage():
            _request(f"{archive.rstrip('/')}/{package.path}", folder / f"{package.artifact}.aar", package)
            return _require_pinned(folder, package)
        case DebPackage():
            _request(f"{archive.rstrip('/')}/{package.path}", folder / package.name, package)
            return _require_pinned(folder, package)
        case _:
            assert_never(package)


def _run(command: list[str], package: Package) -> None:
    program = find_program(command[0])
    if program is None:
        raise MissingDependencyError(
            f"fetching '{package.origin.name}' needs {command[0]}, which is not installed", hint=install_hint(command[:1])
        )
    try:
        result = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, errors="replace", check=False, timeout=_CLIENT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(package, f"'{command[0]}' was still running after {_CLIENT_TIMEOUT_S:g} s") from error
    if result.returncode:
        raise _not_fetched(package, one_line(mask_urls_in(result.stderr.strip())[-800:]) or f"exit code {result.returncode}")


def _request(address: str, place: Path, package: Package) -> None:
    """Download a file by HTTP to the path `place`. Send a login in the address as basic authentication, but not to redirects."""
    parts = urlsplit(address)
    login, at, host = parts.netloc.rpartition("@")
    address = parts._replace(netloc=host).geturl()
    try:
        request = urllib.request.Request(address)
        if at:
            request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote(login).encode()).decode()}")
        size_bytes = 0
        with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT_S) as answer, place.open("xb") as file:
            while part := answer.read(_COPY_BYTES):
                size_bytes += len(part)
                if size_bytes > MAX_BYTES:
                    raise _not_fetched(package, f"the server sent more than {MAX_BYTES} bytes")
                file.write(part)
    except (OSError, HTTPException, ValueError) as error:  # urllib's errors are OSErrors; a wrong proxy is a ValueError
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise _not_fetched(package, f"{address}: {one_line(mask_urls_in(str(error)))}") from None


def _require_pinned(folder: Path, package: Package) -> Path:
    """Return the path of the only file in the download folder; raise an error if its SHA-256 is not the pinned one."""
    files = sorted(folder.iterdir())
    if len(files) != 1:
        raise _not_fetched(package, f"{len(files)} files were downloaded; expected one")
    if (sha256 := sha256_of(files[0])) != package.sha256:
        raise ArtifactError(
            f"'{package.origin.name}' has sha256 {sha256}; expected {package.sha256}",
            hint="the registry's file differs from the pinned one; quadbench has not used it",
        )
    return files[0]


def _extracted(archive: Path, member: str, folder: Path) -> Path:
    """Copy the file `member` of a .tar.gz archive into a folder and return the copy's path. The caller checks the SHA-256."""
    place = folder / Path(member).name
    with tarfile.open(archive, "r:gz") as members:
        content = members.extractfile(member)
        if content is None:
            raise ArtifactError(f"'{archive.name}' has no file '{member}'")
        with content, place.open("xb") as file:
            while part := content.read(_COPY_BYTES):
                file.write(part)
    return place


def _not_fetched(package: Package, reason: str) -> MissingDependencyError:
    hint = _DEBIAN_HINT if isinstance(package, DebPackage) else _NETWORK_HINT
    return MissingDependencyError(f"'{package.origin.name}' could not be fetched: {reason}", hint=hint)
