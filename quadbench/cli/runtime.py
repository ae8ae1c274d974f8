"""The command `runtime`: make, list, show and remove runtime kits, which hold the libraries that run graphs on devices."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from quadbench.artifacts import MIB, StoredArtifact
from quadbench.artifacts.kit import Kit
from quadbench.artifacts.run_record import file_refs
from quadbench.cli.console import print_answer
from quadbench.cli.options import Options, Subparsers, add_abi, add_action, add_group
from quadbench.errors import ArtifactError
from quadbench.kits import store
from quadbench.kits.kit_compatibility import compiler_build, compiler_problem, kit_doubts, target_problems
from quadbench.kits.packages import MAVEN_CENTRAL, MAVEN_VARIABLE, PINS, find_pin
from quadbench.results.manifest import check_contents
from quadbench.spec.variables import web_variable
from quadbench.target.abi import PHONE_ABI, PHONE_MACHINE, Abi
from quadbench.target.profile import DeviceProfile, load_profile
from quadbench.target.targets import LiteRtTarget, OnnxRuntimeTarget, QnnTarget, target_key


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "runtime")
    adding = add_action(actions, "add", run_add, "create a kit from AARs, wheels, folders or .so files, and verify it")
    adding.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".aar, .whl, .zip or lib*.so, or a folder with these")
    add_abi(adding, Abi.ARM64_V8A)
    fetching = add_action(actions, "fetch", run_fetch, "create a kit from public packages, each with a pinned sha256")
    maven = f"GROUP:ARTIFACT:VERSION#sha256=HEX of the Maven repository at ${MAVEN_VARIABLE} (default: {MAVEN_CENTRAL})"
    fetching.add_argument("names", nargs="+", metavar="NAME", help=f"{', '.join(PINS)}, or {maven}")
    add_action(actions, "list", run_list, "list the kits")
    showing = add_action(actions, "show", run_show, "print a kit, and check its files, its compiler and a device's targets")
    showing.add_argument("--profile", metavar="NAME", help="also check that this device profile can run the kit")
    removing = add_action(actions, "remove", run_remove, "delete a kit")
    for action in (showing, removing):
        action.add_argument("kit", metavar="KIT", help="the beginning of the kit's digest")


def run_add(options: Options) -> int:
    return _print_addition(options, store.add_kit(options.files, Abi(options.abi), options.layout))


def run_fetch(options: Options) -> int:
    pins = [find_pin(name) for name in options.names]
    maven = web_variable(MAVEN_VARIABLE) or MAVEN_CENTRAL
    return _print_addition(options, store.fetch_kit(pins, options.layout, maven=maven))


def run_list(options: Options) -> int:
    kits = store.list_checked_kits(options.layout)
    rows = [
        _row(kit) if isinstance(kit, StoredArtifact) else {"folder": str(folder), "fault": str(kit)}
        for folder, kit in kits.items()
    ]
    lines = [_line(kit) if isinstance(kit, StoredArtifact) else f"{folder.name}  damaged: {kit}" for folder, kit in kits.items()]
    print_answer(options, rows, "\n".join(lines) or "no kits; create one with quadbench runtime add or quadbench runtime fetch")
    return 0 if all(isinstance(kit, StoredArtifact) for kit in kits.values()) else ArtifactError.exit_code


def run_show(options: Options) -> int:
    kit = store.find_kit(options.kit, options.layout)
    problems = _problems_by_target(kit.artifact, load_profile(options.profile)) if options.profile else {}
    check_contents(kit, file_refs(kit.artifact))
    targets = [f"  {target}: {'; '.join(reasons) or 'ready'}" for target, reasons in problems.items()]
    print_answer(options, {**_row(kit), "targets": problems}, "\n".join((_line(kit), *_details(kit.artifact), *targets)))
    return ArtifactError.exit_code if problems and all(problems.values()) else 0


def run_remove(options: Options) -> int:
    place = store.remove_kit(options.kit, options.layout)
    print_answer(options, {"removed": str(place)}, f"removed {place}")
    return 0


def _problems_by_target(kit: Kit, profile: DeviceProfile) -> dict[str, list[str]]:
    """Return a dict from target key to the reasons why a kit's libraries cannot run the target's graphs ([] if they can)."""
    foreign = [] if kit.abi is PHONE_ABI else [f"the kit is for {kit.abi}; expected {PHONE_ABI}"]
    run_by_harness = OnnxRuntimeTarget | QnnTarget | LiteRtTarget
    targets = [target for target in (profile.target, *profile.alternatives) if isinstance(target, run_by_harness)]
    build, htp_arch = compiler_build(), profile.soc.htp_arch
    return {target_key(target, PHONE_MACHINE): [*foreign, *target_problems(kit, target, htp_arch, build)] for target in targets}


def _print_addition(options: Options, addition: store.AddedKit) -> int:
    kit, left_out = addition.kit, addition.left_out
    unused = [f"left out because nothing in the kit needs them: {', '.join(left_out)}"] if left_out else []
    print_answer(options, {**_row(kit), "left_out": left_out}, "\n".join((_line(kit), *_details(kit.artifact), *unused)))
    return 0


def _row(kit: StoredArtifact[Kit]) -> dict[str, Any]:
    doubts = kit_doubts(kit.artifact)
    return {**asdict(kit.artifact), "folder": str(kit.folder), "is_reused": kit.is_reused, "doubts": doubts}


def _line(kit: StoredArtifact[Kit]) -> str:
    content = kit.artifact
    versions = ", ".join(f"{name} {version}" for name, version in content.versions.items())
    count, size_bytes = len(content.libraries), sum(library.file.size_bytes for library in content.libraries)
    size = f"{count} {'library' if count == 1 else 'libraries'}, {size_bytes / MIB:.1f} MB"
    return f"{kit.folder.name}  {content.abi}  {versions or 'version unknown'}  {size}"


def _details(kit: Kit) -> list[str]:
    widest = max(len(library.name) for library in kit.libraries)
    libraries = [
        f"  {library.name.ljust(widest)}  {library.role:7}  {library.file.size_bytes / MIB:6.1f} MB" for library in kit.libraries
    ]
    origins = [f"  from {origin.name}, licence: {origin.licence or 'not stated in the file'}" for origin in kit.origins]
    compiler = compiler_problem(kit, compiler_build())
    doubts = [f"  note: {doubt}" for doubt in kit_doubts(kit)]
    return [*libraries, *origins, *doubts, *([f"  not for Qualcomm's HTP yet: {compiler}"] if compiler else [])]
