"""Check whether a runtime kit's libraries run on an ABI's devices, and choose a kit for a compile target."""

import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from quadbench.artifacts import StoredArtifact
from quadbench.artifacts.kit import Kit, Library, Role
from quadbench.kits.elf import HEXAGON, ElfFile
from quadbench.target.abi import Abi
from quadbench.target.targets import LiteRtTarget, QnnTarget, Target, vendor_of

COMPILER = "onnxruntime-qnn"  # the package that compiles for Qualcomm's HTP on this machine
QNN_RELEASES = {
    "2.3.0": "2.47.0.260601114230",
    "2.4.0": "2.48.40.260702151143",
    "2.5.0": "2.49.40.260810104044",
    "2.6.0": "2.50.40.260831140417",
    "2.7.0": "2.51.0.260929181845",
}
"""The build of Qualcomm's SDK in each onnxruntime-qnn, oldest first, read from its wheels for Linux on 2026-11-25. The plugin for
Android, com.qualcomm.qti:onnxruntime-android-qnn, has the same versions."""
OLDEST_RUNTIME = "1.24.2"  # the oldest ONNX Runtime for all of QNN_RELEASES, from their metadata
BLIND_PLUGINS = {"2.4.0": "github.com/onnxruntime/onnxruntime-qnn/issues/679"}
"""Versions of the plugin that show no NPU on Android, with the public thread that says so."""
_PLUGIN_ORIGIN = re.compile(r"\bonnxruntime-android-qnn[:-]([0-9]{1,4}(?:\.[0-9]{1,4}){1,3})", re.ASCII)
_PLUGIN_PACKAGE = "com.qualcomm.qti:onnxruntime-android-qnn"
_BUILT_IN_PACKAGE = "com.microsoft.onnxruntime:onnxruntime-android-qnn"
_BUILT_IN = b"QnnInterface_getProviders"  # looked up by Qualcomm's execution provider, so ONNX Runtime has it only with that
_QNN_BUILD = re.compile(rb"v([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{12})(?![0-9])")
_RUNTIME_VERSION = re.compile(rb"\0VERS_([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})\0")  # a symbol version
_OF_LITERT = {  # symbols that the harness uses, in litert.cpp
    "LiteRtCreateEnvironment", "LiteRtDestroyEnvironment", "LiteRtCreateModelFromFile", "LiteRtDestroyModel",
    "LiteRtCreateOptions", "LiteRtDestroyOptions", "LiteRtSetOptionsHardwareAccelerators", "LiteRtCreateOpaqueOptions",
    "LiteRtAddOpaqueOptions", "LiteRtCreateCompiledModel", "LiteRtDestroyCompiledModel", "LiteRtGetModelSignature",
    "LiteRtGetNumSignatureInputs", "LiteRtGetSignatureInputName", "LiteRtGetSignatureInputTensorByIndex",
    "LiteRtGetNumSignatureOutputs", "LiteRtGetSignatureOutputName", "LiteRtGetSignatureOutputTensorByIndex",
    "LiteRtGetRankedTensorType", "LiteRtCreateTensorBufferFromHostMemory", "LiteRtDestroyTensorBuffer",
    "LiteRtRunCompiledModel",
}  # fmt: skip
ENTRY_POINTS: dict[Role, frozenset[str]] = {
    Role.LITERT: frozenset(_OF_LITERT),
    Role.DISPATCH: frozenset({"LiteRtDispatchGetApi"}),  # used by LiteRT
}
MIN_ANDROID_API = 28  # the harness needs Android 9
_KIB = 1024
_PLUGIN, _DISPATCH = "libonnxruntime_providers_qnn.so", "libLiteRtDispatch_Qualcomm.so"  # open Qualcomm's backends
_OPENED = ("libQnnHtp.so", "libQnnSystem.so")  # Qualcomm's backends
# Qualcomm's graph compiler, 86 MB. libQnnHtp.so opens it only for a graph, not for a context: emulator launches load the
# plugin, libQnnHtp.so and libQnnSystem.so alone.
_GRAPH_COMPILER = "libQnnHtpPrepare.so"
_USERS_OF_LIBC = (Role.RUNTIME, Role.PLUGIN, Role.LITERT, Role.DISPATCH)  # always linked to the system's C library
_HTP_ROLES = (Role.BACKEND, Role.STUB, Role.SKEL)


def qnn_build(library: Path) -> str | None:
    """Return the Qualcomm SDK build number in a library file, such as 2.51.0.260929181845, or None if it contains none."""
    return _first(_QNN_BUILD, library)


def runtime_version(library: Path) -> str | None:
    """Return the version in an ONNX Runtime library file, such as 1.32.0, or None if the file contains no version."""
    return _first(_RUNTIME_VERSION, library)


def has_built_in_qnn(runtime: Path) -> bool:
    """Return True if an ONNX Runtime library has Qualcomm's execution provider built in, so that it takes no plugin for it."""
    return _first(re.compile(b"(%s)" % _BUILT_IN), runtime) is not None


def built_in_problem(name: str) -> str:
    """Return the reason against an ONNX Runtime library that has Qualcomm's execution provider built in."""
    return (
        f"'{name}' has Qualcomm's execution provider built in, as that of {_BUILT_IN_PACKAGE} has; expected ONNX Runtime without"
        f" it and, for an NPU, the plugin {_PLUGIN_PACKAGE}, which has the same name but is Qualcomm's"
    )


def compiler_build() -> str | None:
    """Return the Qualcomm SDK build number of the HTP compiler, package onnxruntime-qnn. Return None if it is not installed."""
    spec = find_spec(COMPILER.replace("-", "_"))
    library = Path(spec.origin).with_name("libQnnHtp.so") if spec and spec.origin else None
    return qnn_build(library) if library and library.is_file() else None


def _first(pattern: re.Pattern[bytes], library: Path) -> str | None:
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        match = pattern.search(content)
        return match[1].decode() if match else None


def file_problem(name: str, elf: ElfFile, abi: Abi) -> str | None:
    """Return a message if an ABI's devices cannot load an ELF file: wrong machine, libc or page size. Return None otherwise."""
    traits = abi.traits
    if elf.machine != traits.elf_machine:
        return f"'{name}' is for {elf.machine_name}; expected {traits.machine}, the machine of {abi}"
    foreign = sorted(({other.traits.libc for other in Abi} - {traits.libc}) & set(elf.needed))
    if foreign:
        return f"'{name}' needs '{foreign[0]}', the C library of another system; expected '{traits.libc}', the one of {abi}"
    if elf.alignment_bytes < traits.page_bytes:
        return (
            f"'{name}' has segments aligned to {elf.alignment_bytes / _KIB:g} KB; {abi} can have pages of "
            f"{traits.page_bytes // _KIB} KB, and then cannot load it"
        )
    return None


def program_problem(name: str, elf: ElfFile, abi: Abi) -> str | None:
    """Return a message if an ABI's devices cannot start a program, such as for a wrong loader. Return None otherwise."""
    traits = abi.traits
    if problem := file_problem(name, elf, abi):
        return problem
    if elf.interpreter != traits.interpreter:
        return f"'{name}' has the loader '{elf.interpreter or 'none'}'; expected '{traits.interpreter}'"
    if missing := [needed for needed in elf.needed if needed not in traits.libraries]:
        return f"'{name}' needs {_quoted(missing)}, which {abi} does not have"
    if abi is Abi.ARM64_V8A and (elf.android_api or 0) < MIN_ANDROID_API:
        return f"'{name}' is built for Android API {elf.android_api or 'unknown'}; expected {MIN_ANDROID_API} or newer"
    return None


def kit_problems(
    libraries: Mapping[Library, ElfFile],
    builds: Mapping[Library, str | None],
    exports: Mapping[Library, frozenset[str]],
    abi: Abi,
) -> list[str]:
    """Return a list of reasons why the given libraries cannot form a runtime kit for an ABI. It is empty if they can.

    `builds` are the builds of Qualcomm's SDK, `exports` the exported names of libraries that need certain entry points.
    """
    problems = list(_wrong_files(libraries, abi))
    for library, names in exports.items():
        if absent := sorted(ENTRY_POINTS[library.role] - names):
            others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            problems.append(f"'{library.name}' does not export {absent[0]}{others}; expected the symbols of LiteRT 2.3 or newer")
    problems += [*_unresolved(libraries, abi), *_missing(list(libraries))]
    named = {library.name: build for library, build in builds.items() if build}
    if len(set(named.values())) > 1:
        problems.append(f"libraries have different QNN builds: {', '.join(f'{name} {build}' for name, build in named.items())}")
    return problems


def _wrong_files(libraries: Mapping[Library, ElfFile], abi: Abi) -> Iterator[str]:
    libc, on_dsp = abi.traits.libc, _of_the_dsp(libraries)
    for library, elf in libraries.items():
        if library in on_dsp:
            if elf.machine != HEXAGON:
                users = "skels" if library.role is Role.SKEL else f"'{on_dsp[library]}', which needs it"
                yield f"'{library.name}' is for {elf.machine_name}; expected hexagon, the processor for {users}"
        elif problem := file_problem(library.name, elf, abi):
            yield problem
        elif library.role in _USERS_OF_LIBC and libc not in elf.needed:
            yield f"'{library.name}' needs {_quoted(elf.needed) or 'no library'}; expected '{libc}' too, the libc of {abi}"


def _of_the_dsp(libraries: Mapping[Library, ElfFile]) -> dict[Library, str]:
    """Return the libraries that a Qualcomm DSP loads, each with the name of one that needs it, its own for a skel.

    These are the skels, and what they need, directly or indirectly, unless a library for the CPU needs it too.
    """

    def reached(waiting: dict[Library, str]) -> dict[Library, str]:
        users = dict[Library, str]()
        while waiting:
            library, user = waiting.popitem()
            if library not in users:
                users[library] = user
                waiting |= {one: library.name for one in libraries if one.name in libraries[library].needed and one not in users}
        return users

    skels = reached({library: library.name for library in libraries if library.role is Role.SKEL})
    own = {library: library.name for library in libraries if library.role not in (Role.SKEL, Role.SUPPORT)}
    on_cpu = reached(own)
    return {library: user for library, user in skels.items() if library.role is Role.SKEL or library not in on_cpu}


def _unresolved(libraries: Mapping[Library, ElfFile], abi: Abi) -> Iterator[str]:
    """Yield a message for each kit library whose dependencies are missing from both kit and device. Skip DSP libraries."""
    known, on_dsp = {library.name for library in libraries} | abi.traits.libraries, _of_the_dsp(libraries)
    for library, elf in libraries.items():
        missing = [name for name in elf.needed if name not in known]
        if missing and library not in on_dsp and not file_problem(library.name, elf, abi):
            yield f"'{library.name}' needs {_quoted(missing)}, which neither the kit nor {abi} has"


def _missing(libraries: list[Library]) -> Iterator[str]:
    """Yield a message for each library that a kit needs but lacks, and a message if a kit has several ONNX Runtime libraries."""
    names = {role: [library.name for library in libraries if library.role is role] for role in Role}
    if len(names[Role.RUNTIME]) != 1:
        held = _quoted(names[Role.RUNTIME]) or "nothing"
        yield f"a kit needs exactly one ONNX Runtime library, such as libonnxruntime.so; found {held}"
    if names[Role.DISPATCH] and not names[Role.LITERT]:
        yield f"'{names[Role.DISPATCH][0]}' is opened by 'libLiteRt.so', which is missing"
    if _PLUGIN in names[Role.PLUGIN]:
        yield from (f"'{_PLUGIN}' opens '{name}', which is missing" for name in _OPENED if name not in names[Role.BACKEND])
    if names[Role.BACKEND] and not {_PLUGIN, _DISPATCH} & {library.name for library in libraries}:
        yield (
            f"'{names[Role.BACKEND][0]}' is opened by '{_PLUGIN}' or '{_DISPATCH}'; both are missing; the plugin for phones is in"
            f" {_PLUGIN_PACKAGE}"
        )
    sides = {(library.htp_arch, library.role): library.name for library in libraries if library.htp_arch}
    for (arch, role), name in sides.items():
        other = Role.SKEL if role is Role.STUB else Role.STUB
        if (arch, other) not in sides:
            yield f"'{name}' is a {role} without its {other}; expected '{side_name(arch, other)}' beside it"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def side_name(arch: str | None, role: Role) -> str:
    """Return the file name of an HTP architecture's stub (CPU library) or skel (DSP library), such as `libQnnHtpV79Skel.so`."""
    return f"libQnnHtpV{(arch or '').removeprefix('v')}{role.capitalize()}.so"


def best_kit(
    kits: Iterable[StoredArtifact[Kit]], abi: Abi, target: Target, htp_arch: str | None, build: str | None
) -> StoredArtifact[Kit] | None:
    """Return the kit with the newest ONNX Runtime that runs a compile target's graphs on an ABI. Return None if no kit does.

    Of kits with the same version, return the one with the fewest bytes to push to the device.
    """

    def rank(kit: StoredArtifact[Kit]) -> tuple[list[int], int]:
        size_bytes = sum(library.file.size_bytes for library in libraries_for(kit.artifact, target, htp_arch))
        return _numbers(kit.artifact.versions.get("onnxruntime", "0")), -size_bytes

    fitting = (kit for kit in kits if kit.artifact.abi is abi and not target_problems(kit.artifact, target, htp_arch, build))
    return max(fitting, key=rank, default=None)


def libraries_for(kit: Kit, target: Target, htp_arch: str | None) -> tuple[Library, ...]:
    """Return a tuple of the kit's Library objects that a device needs for a target: runtimes, support libraries, NPU libraries.

    The HTP graph compiler is left out: devices get context binaries that were compiled on this machine.
    """
    roles = {Role.RUNTIME, Role.SUPPORT}
    if isinstance(target, QnnTarget):
        roles |= {Role.PLUGIN, *_HTP_ROLES}
    if isinstance(target, LiteRtTarget):
        roles |= {Role.LITERT, Role.DISPATCH, *(_HTP_ROLES if target.is_for_htp else ())}
    own = (library for library in kit.libraries if library.role in roles and library.htp_arch in (None, htp_arch))
    return tuple(
        library
        for library in own
        if library.name != _GRAPH_COMPILER and (library.role is not Role.DISPATCH or _is_dispatch_for(library, target))
    )


def kit_doubts(kit: Kit) -> list[str]:
    """Return sentences on what a stored kit cannot do, whatever the device: what its NPU libraries lack, and known faults."""
    doubts = []
    backends = kit.libraries_with_role(Role.BACKEND)
    if backends and not any(kit.libraries_with_role(role) for role in (Role.STUB, Role.SKEL)):
        example = f"'{side_name('v79', Role.STUB)}' and '{side_name('v79', Role.SKEL)}' for HTP v79"
        doubts.append(f"no NPU can use '{backends[0].name}': the kit has neither stub nor skel; expected such as {example}")
    named = next((match[1] for origin in kit.origins if (match := _PLUGIN_ORIGIN.search(origin.name))), None)
    plugin = named or next((version for version, build in QNN_RELEASES.items() if build == kit.versions.get("qnn")), None)
    if kit.abi is Abi.ARM64_V8A and plugin in BLIND_PLUGINS and any(library.name == _PLUGIN for library in kit.libraries):
        newest = list(QNN_RELEASES)[-1]
        doubts.append(
            f"'{_PLUGIN}' {plugin} shows no NPU on Android ({BLIND_PLUGINS[plugin]}); take another version with its own QNN"
            f" build, such as {newest} with {QNN_RELEASES[newest]}"
        )
    runtime = kit.versions.get("onnxruntime")
    if any(library.name == _PLUGIN for library in kit.libraries) and runtime and _numbers(runtime) < _numbers(OLDEST_RUNTIME):
        doubts.append(f"ONNX Runtime {runtime} is too old for '{_PLUGIN}'; expected {OLDEST_RUNTIME} or newer")
    return doubts


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def target_problems(kit: Kit, target: Target, htp_arch: str | None, build: str | None) -> list[str]:
    """Return the reasons why a kit cannot run a target's graphs. `build` is the SDK build number of Qualcomm's HTP compiler."""
    names = {library.name for library in kit.libraries}
    if isinstance(target, QnnTarget):
        if _PLUGIN not in names:
            return [f"the kit has no execution provider for Qualcomm's HTP; expected '{_PLUGIN}'"]
        return _htp_problems(kit, htp_arch, build)
    if not isinstance(target, LiteRtTarget):
        return []
    if not kit.libraries_with_role(Role.LITERT):
        return ["the kit has no LiteRT; expected 'libLiteRt.so'"]
    if target.soc is None:
        return []
    vendor = vendor_of(target.soc)
    if not any(_is_dispatch_for(library, target) for library in kit.libraries):
        return [f"the kit has no dispatch library for {vendor.title}'s NPU; expected '{vendor.dispatch}'"]
    if not target.is_for_htp:
        return []  # what the dispatch library opens is the device's own
    missing = [f"the kit has no '{name}', which '{vendor.dispatch}' opens" for name in _OPENED if name not in names]
    return [*missing, *_htp_problems(kit, htp_arch, build)]


def _htp_problems(kit: Kit, htp_arch: str | None, build: str | None) -> list[str]:
    sides = {library.role for library in kit.libraries if library.htp_arch == htp_arch}
    missing = [role for role in (Role.STUB, Role.SKEL) if htp_arch and role not in sides]
    compiler = compiler_problem(kit, build)
    return [
        *(f"the kit has no {role} for HTP {htp_arch}; expected '{side_name(htp_arch, role)}'" for role in missing),
        *([compiler] if compiler else []),
    ]


def _is_dispatch_for(library: Library, target: Target) -> bool:
    """Return True if a library's name is that of LiteRT's dispatch library (NPU driver) for a target's chip, ignoring case."""
    soc = target.soc if isinstance(target, LiteRtTarget) else None
    return soc is not None and library.name.lower() == vendor_of(soc).dispatch.lower()


def compiler_problem(kit: Kit, build: str | None) -> str | None:
    """Return a message if the Qualcomm SDK builds of a kit's QNN libraries and of the compiler differ. Return None otherwise."""
    expected = kit.versions.get("qnn")
    if expected is None or build == expected:
        return None
    version = next((version for version, build in QNN_RELEASES.items() if build == expected), None)
    known = ", ".join(f"{version} has {build}" for version, build in QNN_RELEASES.items())
    install = f"pip install {COMPILER}=={version}" if version else f"no {COMPILER} with that build is known ({known})"
    other = f"the compiler on this machine has {build}" if build else f"the compiler {COMPILER} is not installed on this machine"
    return f"the kit has QNN build {expected}, and {other}; both must be the same: {install}"
