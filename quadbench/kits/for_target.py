"""For a target: kits, a target and the compiler here -> the kit that runs its graphs, or why one does not. Pure."""

from collections.abc import Iterable

from quadbench.artifacts import Stored
from quadbench.artifacts.kit import Kit, Library, Role
from quadbench.kits.fitness import side_name
from quadbench.kits.versions import COMPILER, COMPILER_VERSIONS
from quadbench.target.abi import Abi
from quadbench.target.targets import LiteRtTarget, QnnTarget, Target
from quadbench.target.vendors import vendor_of

# It is 86 MB. libQnnHtp.so opens it only where it is given a graph instead of a context: launches on the emulator load the
# plugin, libQnnHtp.so and libQnnSystem.so alone.
_GRAPH_COMPILER = "libQnnHtpPrepare.so"
_PLUGIN = "libonnxruntime_providers_qnn.so"
_HTP_ROLES = (Role.BACKEND, Role.STUB, Role.SKEL)


def best_kit(
    kits: Iterable[Stored[Kit]], abi: Abi, target: Target, htp_arch: str | None, build: str | None
) -> Stored[Kit] | None:
    """Return the kit that devices of an ABI with that HTP take; None where no kit runs the target's graphs.

    It is the one with the newest ONNX Runtime, and among those the one with the fewest bytes to push.
    """

    def rank(kit: Stored[Kit]) -> tuple[list[int], int]:
        version = [int(part) for part in kit.artifact.versions.get("onnxruntime", "0").split(".")]
        return version, -sum(library.file.size_bytes for library in libraries_for(kit.artifact, target, htp_arch))

    fitting = (kit for kit in kits if kit.artifact.abi is abi and not target_problems(kit.artifact, target, htp_arch, build))
    return max(fitting, key=rank, default=None)


def libraries_for(kit: Kit, target: Target, htp_arch: str | None) -> tuple[Library, ...]:
    """Return the libraries that a device takes: runtimes and what supports them, for an NPU its vendor's and no other's.

    What compiles graphs for the HTP stays here too: a device gets context binaries, which the compiler on this machine has made.
    """
    roles = _roles(target)
    own = (library for library in kit.libraries if library.role in roles and library.htp_arch in (None, htp_arch))
    return tuple(
        library
        for library in own
        if library.name != _GRAPH_COMPILER and (library.role is not Role.DISPATCH or _is_dispatch_for(library, target))
    )


def target_problems(kit: Kit, target: Target, htp_arch: str | None, build: str | None) -> list[str]:
    """Return every reason why a kit cannot run what is compiled for a target on a device with that HTP, each in a sentence.

    `build` is the compiler's build of Qualcomm's SDK, None where there is no compiler.
    """
    if isinstance(target, LiteRtTarget):
        return _litert_problems(kit, target, htp_arch, build)
    if not isinstance(target, QnnTarget):
        return []
    if _PLUGIN not in {library.name for library in kit.libraries}:
        return [f"it has no execution provider for Qualcomm's HTP; expected '{_PLUGIN}'"]
    return _htp_problems(kit, htp_arch, build)


def _litert_problems(kit: Kit, target: LiteRtTarget, htp_arch: str | None, build: str | None) -> list[str]:
    if not kit.of_role(Role.LITERT):
        return ["it has no LiteRT; expected 'libLiteRt.so'"]
    if target.soc is None:
        return []
    vendor = vendor_of(target.soc)
    if not any(_is_dispatch_for(library, target) for library in kit.libraries):
        return [f"it has no dispatch library for {vendor.title}'s NPU; expected '{vendor.dispatch}'"]
    if not target.is_for_htp:
        return []  # what the dispatch library opens is the device's own
    missing = sorted({"libQnnHtp.so", "libQnnSystem.so"} - {library.name for library in kit.libraries})
    return [*(f"it has no '{name}', which '{vendor.dispatch}' opens" for name in missing), *_htp_problems(kit, htp_arch, build)]


def _htp_problems(kit: Kit, htp_arch: str | None, build: str | None) -> list[str]:
    sides = {library.role for library in kit.libraries if library.htp_arch == htp_arch}
    missing = [role for role in (Role.STUB, Role.SKEL) if htp_arch and role not in sides]
    compiler = compiler_problem(kit, build)
    return [
        *(f"it has no {role} for HTP {htp_arch}; expected '{side_name(htp_arch, role)}'" for role in missing),
        *([compiler] if compiler else []),
    ]


def _roles(target: Target) -> set[Role]:
    """Return the roles of what a target takes."""
    roles = {Role.RUNTIME, Role.SUPPORT}
    if isinstance(target, QnnTarget):
        roles |= {Role.PLUGIN, *_HTP_ROLES}
    if isinstance(target, LiteRtTarget):
        roles |= {Role.LITERT, Role.DISPATCH, *(_HTP_ROLES if target.is_for_htp else ())}
    return roles


def _is_dispatch_for(library: Library, target: Target) -> bool:
    """Say whether LiteRT runs a chip's graphs by a library; its makers do not agree on capital letters."""
    soc = target.soc if isinstance(target, LiteRtTarget) else None
    return soc is not None and library.name.lower() == vendor_of(soc).dispatch.lower()


def compiler_problem(kit: Kit, build: str | None) -> str | None:
    """Say how the kit's build of Qualcomm's SDK differs from the compiler's; None where they agree or the kit has none of it."""
    expected = kit.versions.get("qnn")
    if expected is None or build == expected:
        return None
    version = COMPILER_VERSIONS.get(expected)
    known = ", ".join(f"{version} has {build}" for build, version in COMPILER_VERSIONS.items())
    install = f"pip install {COMPILER}=={version}" if version else f"no {COMPILER} with that build is known ({known})"
    other = f"the compiler here has {build}" if build else f"the compiler here, {COMPILER}, is not installed"
    return f"it has QNN build {expected}, and {other}; both must be the same: {install}"
