"""Runtime kits. Each kit has the shared libraries that run graphs on devices of one ABI, and records where they came from."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from quadbench.artifacts.bundle import SCHEMA_VERSION, FileRef
from quadbench.artifacts.safe_text import Line, ValidatedBy
from quadbench.errors import quote
from quadbench.target.abi import Abi

_LIBRARY = re.compile(r"lib[A-Za-z0-9_+-]{1,80}(\.[A-Za-z0-9_+-]{1,40}){0,4}\.so(\.[0-9]{1,8}){0,3}", re.ASCII)
_RUNTIME_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){2}", re.ASCII)
_HTP_PART = re.compile(r"libQnnHtpV([0-9]{2})(Stub|Skel)\.so", re.ASCII)


class Role(StrEnum):
    """The purpose of a shared library of a runtime kit, such as `runtime` (ONNX Runtime) or `plugin` (execution provider)."""

    RUNTIME = "runtime"  # ONNX Runtime: the harness opens it
    PLUGIN = "plugin"  # an execution provider, opened by ONNX Runtime
    LITERT = "litert"  # LiteRT: the harness opens it for graphs that are .tflite files
    DISPATCH = "dispatch"  # the chip vendor's library that LiteRT opens to run graphs of the vendor's compiler
    BACKEND = "backend"  # the chip vendor's library that the plugin or Qualcomm's dispatch library opens
    STUB = "stub"  # the vendor's driver for the tensor processor, on the CPU's side
    SKEL = "skel"  # the counterpart of the stub, which runs on the tensor processor
    SUPPORT = "support"  # needed by another library


def check_library_name(text: str) -> str:
    """Return the name if it is valid for a shared library, such as `libfoo.so` or `libfoo.so.1`. Raise ValueError otherwise."""
    if not _LIBRARY.fullmatch(text):
        raise ValueError(f"{quote(text)} is not a library name; expected lib and .so around letters, digits, ., _, + and -")
    return text


def is_library_name(text: str) -> bool:
    """Return whether a file name has the form of a shared library's name, such as `libfoo.so` or `libfoo.so.1`."""
    return _LIBRARY.fullmatch(text) is not None


LibraryName = Annotated[str, ValidatedBy(check_library_name)]


@dataclass(frozen=True, kw_only=True)
class Library:
    """A shared library of a runtime kit. Its file's name is its SHA-256; `name` is the name by which other libraries load it."""

    name: LibraryName
    role: Role
    file: FileRef

    @property
    def htp_arch(self) -> str | None:
        """Return the Qualcomm HTP architecture of a stub or skel, such as v79; None for other libraries."""
        part = _HTP_PART.fullmatch(self.name)
        return f"v{part[1]}" if part else None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The file, folder or package from which a runtime kit's libraries were taken. `licence` is from the package's metadata."""

    name: Line
    sha256: str | None  # of the file or package; None for a folder
    licence: Line | None = None


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A runtime kit: the shared libraries for one ABI. `digest` covers the ABI and the names and contents of the libraries.

    `versions` are read from the libraries: `onnxruntime`, and `qnn`, the build of Qualcomm's SDK.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["kit"] = "kit"
    digest: str
    abi: Abi
    libraries: tuple[Library, ...]
    versions: dict[str, Line]
    origins: tuple[Origin, ...]

    def __post_init__(self) -> None:
        """Raise ValueError for a repeated library name, a wrong digest or library role, or a malformed ONNX Runtime version."""
        names = [library.name for library in self.libraries]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two libraries have the name '{twice}', expected different names")
        if self.digest != (expected := kit_digest(self.abi, self.libraries)):
            raise ValueError(f"digest is {quote(self.digest)}, expected that of its ABI and libraries, {quote(expected)}")
        for library in self.libraries:
            if library.role is not (role := role_of(library.name)):
                raise ValueError(f"the role of '{library.name}' is '{library.role}', expected '{role}'")
        version = self.versions.get("onnxruntime")
        if version is not None and not _RUNTIME_VERSION.fullmatch(version):
            raise ValueError(f"the version of onnxruntime is {quote(version)}, expected three numbers and two dots, as in 1.27.0")

    def libraries_with_role(self, role: Role) -> tuple[Library, ...]:
        """Return the libraries of the runtime kit that have the given role, as a tuple of Library objects."""
        return tuple(library for library in self.libraries if library.role is role)


def kit_digest(abi: Abi, libraries: Iterable[Library]) -> str:
    """Return the digest of a runtime kit: the SHA-256 of its ABI and of the names and contents of its libraries."""
    content = {"abi": abi, **{library.name: library.file.sha256 for library in libraries}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def role_of(name: str) -> Role:
    """Return a library's role in a runtime kit, such as STUB, judged by the file name. For an unknown name, return SUPPORT."""
    if part := _HTP_PART.fullmatch(name):
        return Role.STUB if part[2] == "Stub" else Role.SKEL
    for role, pattern in _ROLES.items():
        if re.fullmatch(pattern, name):
            return role
    return Role.SUPPORT


_ROLES = {
    Role.RUNTIME: r"libonnxruntime\.so(\.[0-9]+)*",
    Role.PLUGIN: r"libonnxruntime_providers_(?!shared)[a-z]+\.so",
    Role.LITERT: r"libLiteRt\.so",
    Role.DISPATCH: r"libLiteRtDispatch_[A-Za-z]+\.so",
    Role.BACKEND: r"libQnn(Htp|HtpPrepare|System)\.so",
}
