"""Choose a device's runtime libraries: the host's if the device can run them, else a runtime kit's. List the files to push."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quadbench.artifacts import FileRef, StoredArtifact, StoredBundle, StoredCompiled
from quadbench.artifacts.kit import Kit, Library
from quadbench.artifacts.run_record import file_refs, harness_files
from quadbench.compile.availability import require
from quadbench.deploy import LocalFile
from quadbench.devices import Device
from quadbench.errors import MissingDependencyError, UserError
from quadbench.harness.program import check_harness, find_harness
from quadbench.harness.runtime_library import litert_library, runtime_library
from quadbench.host import usable_cores
from quadbench.kits.kit_compatibility import best_kit, compiler_build, libraries_for, target_problems
from quadbench.kits.store import find_kit, list_kits
from quadbench.results.digests import sha256_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.target.abi import Abi, host_abi
from quadbench.target.profile import DeviceProfile
from quadbench.target.targets import LiteRtTarget, QnnTarget, RunTarget, target_key, vendor_of

_FETCHED = {Abi.ARM64_V8A: "onnxruntime-android", Abi.ARM64_LINUX: "onnxruntime-linux"}
_FETCHED_LITERT = {Abi.ARM64_LINUX: "onnxruntime-linux litert-linux"}  # no supported registry has LiteRT for Android
HARNESS, RUNTIME, BASE, PER_GRAPH = "harness", "runtime", "base", "per-graph"
FLOAT, ADAPTERS, INPUTS = "float", "adapters", "tables and inputs"


@dataclass(frozen=True, kw_only=True)
class DeviceKind:
    """A device's profile, ABI and compile target, which determine the files to push. `address` names the device in messages.

    `serial` is the device's serial, as far as it is known without connecting.
    """

    address: str
    serial: str
    profile: DeviceProfile
    abi: Abi
    target: RunTarget

    @property
    def key(self) -> str:
        """Return the short name of the device's compile target, such as `qnn-v79-69`."""
        return target_key(self.target, self.abi.traits.machine)


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """The harness program, runtime kit and compiled graphs that the user gives, used instead of quadbench's own choice.

    A kit is given by a prefix of its digest; compiled bundles are keyed by their bundle's digest and target key.
    """

    harness: Path | None = None
    kit: str | None = None
    compiled: Mapping[tuple[str, str], StoredCompiled] = field(default_factory=dict)


NO_OVERRIDES = Overrides()


@dataclass(frozen=True, kw_only=True)
class KitChoice:
    """A runtime kit (a stored set of runtime libraries), and the tuple of the kit's libraries that one device needs."""

    kit: StoredArtifact[Kit]
    libraries: tuple[Library, ...]

    @property
    def files(self) -> list[LocalFile]:
        """Return a LocalFile (path, SHA-256, size in bytes) for each library in `libraries`, to push to the device."""
        return local_files(self.kit, (library.file for library in self.libraries))


def device_kind(device: Device) -> DeviceKind:
    """Return the DeviceKind of a connected device: its address, serial number, profile, ABI and compile target."""
    target = device.profile.target if device.family == "adb" else device.profile.virtual_target
    return DeviceKind(address=device.facts.address, serial=device.serial, profile=device.profile, abi=device.abi, target=target)


def require_equipment(devices: Sequence[Device], layout: Layout, overrides: Overrides = NO_OVERRIDES) -> None:
    """Raise if a device's harness, runtime kit or compiler is missing. Call this before anything is built.

    A harness or kit that was named explicitly has to fit the devices; no other is tried.

    Raises:
        MissingDependencyError: says what is missing, and where to get it.
        UserError: QUADBENCH_HARNESS is not an executable file, or a device cannot start the named harness.
        UnknownNameError: there is no such kit.
        ArtifactError: a kit is damaged.
    """
    for kind in map(device_kind, devices):
        if not any(key == kind.key for _, key in overrides.compiled):  # a compiled bundle that is given needs no compiler
            require(kind.target, kind.address)
        if overrides.harness:
            check_harness(overrides.harness, kind.abi)
        else:
            find_harness(layout.programs, kind.abi)
        select_kit(kind, layout, overrides)


def require_cores(cores: Sequence[int], devices: Sequence[Device]) -> None:
    """Raise if a device runs on this host's CPU and the host lacks a core number in `cores`. Phones' cores are checked at launch.

    Raises:
        UserError: names the first absent core.
    """
    here = usable_cores()
    absent = [core for core in cores if core not in here]
    shared = [device.facts.address for device in devices if device.shares_host_cpu]
    if absent and shared:
        has = ", ".join(map(str, sorted(here)))
        raise UserError(f"runtime.cores names core {absent[0]}, but '{shared[0]}' has only {has}")


def select_kit(kind: DeviceKind, layout: Layout, overrides: Overrides) -> KitChoice | None:
    """Return the KitChoice of the kit in `overrides`, else of the default kit. Return None to use the host's libraries."""
    return find_named_kit(kind, layout, overrides.kit) if overrides.kit else kit_for(kind, layout)


def kit_for(kind: DeviceKind, layout: Layout) -> KitChoice | None:
    """Return the KitChoice of the fitting kit with the newest ONNX Runtime. Return None if the device uses the host's libraries.

    Raises:
        MissingDependencyError: no kit runs the device's target; the message says why, and where to get one.
        ArtifactError: a kit is damaged.
    """
    is_on_npu = isinstance(kind.target, LiteRtTarget) and kind.target.soc is not None  # this machine has no such runtime
    if kind.abi is host_abi(platform.machine()) and not is_on_npu:
        return None
    stored, htp_arch, build = list_kits(layout), kind.profile.soc.htp_arch, compiler_build()
    kit = best_kit(stored, kind.abi, kind.target, htp_arch, build)
    if kit is None:
        of_abi = [kit.artifact for kit in stored if kit.artifact.abi is kind.abi]
        why = [f"{kit.digest[:12]}: {'; '.join(target_problems(kit, kind.target, htp_arch, build))}" for kit in of_abi]
        raise MissingDependencyError(
            "\n".join((f"'{kind.address}' needs a runtime kit for {kind.abi} that runs {kind.key}", *why)), hint=_where(kind)
        )
    return _choice_of(kit, kind)


def find_named_kit(kind: DeviceKind, layout: Layout, digest: str) -> KitChoice:
    """Return as KitChoice the kit whose digest begins with `digest`. Raise UserError if the device cannot use the kit."""
    kit = find_kit(digest, layout)
    htp_arch = kind.profile.soc.htp_arch
    wrong_abi = [] if kit.artifact.abi is kind.abi else [f"the kit is for {kit.artifact.abi}, not for {kind.abi}"]
    if problems := wrong_abi or target_problems(kit.artifact, kind.target, htp_arch, compiler_build()):
        raise UserError(f"kit {digest} does not fit '{kind.address}': {'; '.join(problems)}", hint="see: quadbench runtime list")
    return _choice_of(kit, kind)


def _choice_of(kit: StoredArtifact[Kit], kind: DeviceKind) -> KitChoice:
    libraries = libraries_for(kit.artifact, kind.target, kind.profile.soc.htp_arch)
    check_contents(kit, (library.file for library in libraries))
    return KitChoice(kit=kit, libraries=libraries)


def host_libraries(target: RunTarget) -> list[LocalFile]:
    """Return this machine's libraries that are deployed for a target: ONNX Runtime, and LiteRT if the target needs it."""
    libraries = [runtime_library(), *([litert_library()] if isinstance(target, LiteRtTarget) else [])]
    return [local_file(library) for library in libraries]


def _where(kind: DeviceKind) -> str:
    if isinstance(kind.target, QnnTarget):
        return "add ONNX Runtime and Qualcomm's libraries: quadbench runtime add; docs/phones.md names the packages"
    if isinstance(kind.target, LiteRtTarget) and (kind.target.soc or kind.abi not in _FETCHED_LITERT):
        dispatch = f" and '{vendor_of(kind.target.soc).dispatch}'" if kind.target.soc else ""
        return f"add ONNX Runtime and LiteRT{dispatch}: quadbench runtime add; docs/phones.md says where to get them"
    fetched = _FETCHED_LITERT if isinstance(kind.target, LiteRtTarget) else _FETCHED
    return f"quadbench runtime fetch {fetched[kind.abi]}" if kind.abi in fetched else "see docs/phones.md"


def push_set(
    harness: Sequence[LocalFile],
    libraries: Sequence[LocalFile],
    graphs: StoredCompiled | StoredBundle,
    bundle: StoredBundle,
    *,
    runs_float: bool = True,
) -> dict[str, list[LocalFile]]:
    """Return a dict from file category, such as `adapters`, to a list of LocalFiles to push. A file can have several categories.

    `graphs` holds the quantized graphs. Unless `runs_float`, the float graphs and float adapters are left out.
    """
    content = bundle.artifact
    quantized = [graph for graph in graphs.artifact.graphs if graph.variant.is_quantized]
    opened = list(harness_files(content, runs_float=runs_float))
    floats, adapters = set(file_refs(content.graphs)), set(file_refs(content.adapters))
    return {
        HARNESS: list(harness),
        RUNTIME: list(libraries),
        BASE: local_files(graphs, file_refs(tuple(graph for graph in quantized if graph.task is None))),
        PER_GRAPH: local_files(graphs, dict.fromkeys(file_refs(tuple(graph for graph in quantized if graph.task is not None)))),
        FLOAT: local_files(bundle, (file for file in opened if file in floats)),
        ADAPTERS: local_files(bundle, (file for file in opened if file in adapters)),
        INPUTS: local_files(bundle, (file for file in opened if file not in floats | adapters)),
    }


def local_files(artifact: StoredBundle | StoredCompiled | StoredArtifact[Kit], files: Iterable[FileRef]) -> list[LocalFile]:
    """Return a LocalFile (path, SHA-256, size in bytes) for each given file of an artifact. Read no file: use the manifest."""
    return [LocalFile(path=artifact.path(file), sha256=file.sha256, size_bytes=file.size_bytes) for file in files]


def local_file(path: Path, *, executable: bool = False) -> LocalFile:
    """Read a file on this machine and return a LocalFile: path, SHA-256 and size in bytes."""
    return LocalFile(path=path, sha256=sha256_of(path), size_bytes=path.stat().st_size, executable=executable)
