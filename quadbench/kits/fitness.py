"""Fitness: a kit's libraries and what their files say -> everything that would keep them from running. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from quadbench.artifacts.kit import Library, Role
from quadbench.kits.elf import HEXAGON, ElfFile
from quadbench.kits.entry_points import ENTRY_POINTS
from quadbench.target.abi import Abi

LEAST_ANDROID_API = 28  # of the harness: Android 9
_KIB = 1024
_OPENERS = ("libonnxruntime_providers_qnn.so", "libLiteRtDispatch_Qualcomm.so")  # of Qualcomm's backends


def file_problem(name: str, elf: ElfFile, abi: Abi) -> str | None:
    """Say why a program or library that runs on the CPU is not for an ABI; None where it is."""
    traits = abi.traits
    if elf.machine != traits.elf_machine:
        return f"'{name}' is for {elf.machine_name}; expected {traits.machine}, as {abi} has it"
    foreign = sorted(({other.traits.libc for other in Abi} - {traits.libc}) & set(elf.needed))
    if foreign:
        return f"'{name}' needs '{foreign[0]}', so it is of another system; expected '{traits.libc}', as {abi} has it"
    if elf.alignment_bytes < traits.page_bytes:
        return (
            f"'{name}' has segments aligned to {elf.alignment_bytes / _KIB:g} KB; {abi} may have pages of "
            f"{traits.page_bytes // _KIB} KB, and would not load it"
        )
    return None


def program_problem(name: str, elf: ElfFile, abi: Abi) -> str | None:
    """Say why devices of an ABI could not start a program; None where they could."""
    traits = abi.traits
    if problem := file_problem(name, elf, abi):
        return problem
    if elf.interpreter != traits.interpreter:
        return f"'{name}' is started by '{elf.interpreter or 'nothing'}'; expected '{traits.interpreter}'"
    if missing := [needed for needed in elf.needed if needed not in traits.libraries]:
        return f"'{name}' needs {_quoted(missing)}, which {abi} does not have"
    if abi is Abi.ARM64_V8A and (elf.android_api or 0) < LEAST_ANDROID_API:
        return f"'{name}' is built for Android API {elf.android_api or 'unknown'}; expected {LEAST_ANDROID_API} or newer"
    return None


def kit_problems(
    libraries: Mapping[Library, ElfFile],
    builds: Mapping[Library, str | None],
    exports: Mapping[Library, frozenset[str]],
    abi: Abi,
) -> list[str]:
    """Return every reason why libraries make no kit, each in a sentence.

    `builds` are the builds of Qualcomm's SDK, `exports` the names in libraries that are opened for some of theirs.
    """
    return [
        *_wrong_files(libraries, abi),
        *_absent_entry_points(exports),
        *_unresolved(libraries, abi),
        *_missing_roles(list(libraries)),
        *_missing_sides(list(libraries)),
        *_different_builds(builds),
    ]


def _wrong_files(libraries: Mapping[Library, ElfFile], abi: Abi) -> Iterator[str]:
    for library, elf in libraries.items():
        if library.role is not Role.SKEL:
            problem = file_problem(library.name, elf, abi) or _libc_problem(library, elf, abi)
            yield from [problem] if problem else []
        elif elf.machine != HEXAGON:
            yield f"'{library.name}' is for {elf.machine_name}; expected hexagon, on which a skel runs"


def _absent_entry_points(exports: Mapping[Library, frozenset[str]]) -> Iterator[str]:
    for library, names in exports.items():
        if absent := sorted(ENTRY_POINTS[library.role] - names):
            others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            yield f"'{library.name}' has no {absent[0]}{others}; expected what LiteRT 2.3 or newer exports"


def _libc_problem(library: Library, elf: ElfFile, abi: Abi) -> str | None:
    """Say that a library is of no system that is known: runtimes and what they open cannot do without the C library."""
    if library.role not in (Role.RUNTIME, Role.PLUGIN, Role.LITERT, Role.DISPATCH) or abi.traits.libc in elf.needed:
        return None
    return (
        f"'{library.name}' needs {_quoted(elf.needed) or 'no library'}; expected '{abi.traits.libc}' among them, as {abi} has it"
    )


def _unresolved(libraries: Mapping[Library, ElfFile], abi: Abi) -> Iterator[str]:
    """Yield what the loader would not find. A skel's needs are on its own processor, and those of another system say nothing."""
    known = {library.name for library in libraries} | abi.traits.libraries
    for library, elf in libraries.items():
        missing = [name for name in elf.needed if name not in known]
        if missing and library.role is not Role.SKEL and not file_problem(library.name, elf, abi):
            yield f"'{library.name}' needs {_quoted(missing)}, which neither the kit nor {abi} has"


def _missing_roles(libraries: list[Library]) -> Iterator[str]:
    names = {role: [library.name for library in libraries if library.role is role] for role in Role}
    if len(names[Role.RUNTIME]) != 1:
        held = _quoted(names[Role.RUNTIME]) or "nothing"
        yield f"a kit has one library of ONNX Runtime, as libonnxruntime.so; found {held}"
    if names[Role.DISPATCH] and not names[Role.LITERT]:
        yield f"'{names[Role.DISPATCH][0]}' is opened by 'libLiteRt.so', which is missing"
    plugin, dispatch = _OPENERS
    if plugin in names[Role.PLUGIN]:
        for name in sorted({"libQnnHtp.so", "libQnnSystem.so"} - set(names[Role.BACKEND])):
            yield f"'{plugin}' opens '{name}', which is missing"
    if names[Role.BACKEND] and not {plugin, dispatch} & {library.name for library in libraries}:
        yield f"'{names[Role.BACKEND][0]}' is opened by '{plugin}' or '{dispatch}'; neither is there"


def _missing_sides(libraries: list[Library]) -> Iterator[str]:
    sides = {(library.htp_arch, library.role): library.name for library in libraries if library.htp_arch}
    for (arch, role), name in sides.items():
        other = Role.SKEL if role is Role.STUB else Role.STUB
        if (arch, other) not in sides:
            yield f"'{name}' is a {role} without its {other}; expected '{side_name(arch, other)}' beside it"


def _different_builds(builds: Mapping[Library, str | None]) -> Iterator[str]:
    named = {library.name: build for library, build in builds.items() if build}
    if len(set(named.values())) > 1:
        yield f"libraries of different QNN builds: {', '.join(f'{name} {build}' for name, build in named.items())}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def side_name(arch: str | None, role: Role) -> str:
    """Return what a stub or a skel for an architecture of Qualcomm's HTP is called."""
    return f"libQnnHtpV{(arch or '').removeprefix('v')}{role.capitalize()}.so"
