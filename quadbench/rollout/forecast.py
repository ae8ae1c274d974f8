"""Forecast: a recipe and addresses -> what a run would build, push and run on each device. Nothing is built or connected."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quadbench.artifacts import Bundle, CompiledBundle, Stored
from quadbench.artifacts.parts import has_references, item_counts
from quadbench.compile import compiled_before
from quadbench.compile.availability import availability
from quadbench.deploy import LocalFile
from quadbench.devices.addresses import AttachedAddress, HostedAddress, LocalAddress, VirtualAddress, parse_address
from quadbench.errors import MissingDependencyError, UserError
from quadbench.harness.program import built_harness
from quadbench.harness.runtime import runtime_library
from quadbench.kits.for_target import best_kit, libraries_for
from quadbench.kits.store import kits
from quadbench.kits.versions import compiler_build
from quadbench.measure.schedule import launches_of
from quadbench.quad.cache import cached
from quadbench.recipe import Recipe
from quadbench.results.layout import Layout
from quadbench.rollout.push_set import HARNESS, RUNTIME, local_file, local_files, push_set
from quadbench.target.abi import Abi, host_abi
from quadbench.target.known import PHONE_ABI
from quadbench.target.profile import DeviceProfile, load_profile, local_profile
from quadbench.target.targets import RunTarget, target_key


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A run on one device before it happens. `push_bytes` are those of files that are there, by what they are.

    What is `to_build` has no bytes yet; what is `missing` keeps the run from happening.
    """

    address: str
    title: str
    abi: Abi
    target: str
    bundle: str | None
    launches: int | None
    images: int | None
    push_bytes: dict[str, int]
    to_build: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The kind of device that an address means."""

    address: str
    profile: DeviceProfile
    abi: Abi
    target: RunTarget

    @property
    def key(self) -> str:
        return target_key(self.target, self.abi.traits.machine)


@dataclass(frozen=True)
class _Notes:
    """The notes about one device, while it is looked at."""

    to_build: list[str]
    missing: list[str]


def forecast(recipe: Recipe, addresses: Sequence[str], *, layout: Layout) -> list[Forecast]:
    """Return what a run on each device would be. An attached phone is known by its profile, and need not be attached.

    Raises:
        UserError: an address is wrong, means no profile, or a device at AI Hub, which takes no files.
        ArtifactError: a bundle, a compiled bundle or a kit that is there is damaged.
    """
    if not addresses:
        raise UserError("a dry run does not look for attached phones", hint="name what it shall be about, as --devices s25")
    places, bundle = [_place(address.strip()) for address in addresses], cached(recipe, layout)
    return [_forecast(place, recipe, bundle, layout) for place in places]


def _forecast(place: _Place, recipe: Recipe, bundle: Stored[Bundle] | None, layout: Layout) -> Forecast:
    notes = _Notes([], [])
    harness, libraries = _harness(place, layout, notes), _libraries(place, layout, notes)
    push, launches = {HARNESS: harness, RUNTIME: libraries}, None
    if bundle is None:
        notes.to_build.append("the bundle")
    else:
        push = push_set(harness, libraries, _graphs(place, bundle, layout, notes), bundle)
        launches = launches_of(recipe, item_counts(bundle.artifact), has_references=has_references(bundle.artifact))
    if place.abi is not host_abi(platform.machine()):
        notes.missing.append("a run that pushes to phones, which this version does not have")
    return Forecast(
        address=place.address,
        title=place.profile.title,
        abi=place.abi,
        target=place.key,
        bundle=bundle.artifact.digest if bundle else None,
        launches=len(launches) if launches else None,
        images=sum(block.warmup + block.iterations for plan in launches for block in plan.sequence) if launches else None,
        push_bytes=_sizes(push),
        to_build=tuple(notes.to_build),
        missing=tuple(notes.missing),
    )


def _sizes(push: Mapping[str, Sequence[LocalFile]]) -> dict[str, int]:
    """Return the bytes of each kind of file; a file of two kinds is pushed once, and counts for the first."""
    first = {file.sha256: what for what, files in reversed(list(push.items())) for file in files}
    return {
        what: sum({f.sha256: f.size_bytes for f in files if first[f.sha256] == what}.values()) for what, files in push.items()
    }


def _place(text: str) -> _Place:
    host = host_abi(platform.machine())
    match parse_address(text):
        case LocalAddress():
            profile = local_profile()
            return _Place(address=text, profile=profile, abi=host, target=profile.target)
        case VirtualAddress(profile=name, target=backend):
            profile = load_profile(name) if backend is None else load_profile(name).with_virtual_target(backend)
            return _Place(address=text, profile=profile, abi=host, target=profile.virtual_target)
        case AttachedAddress(profile=str(name)):
            profile = load_profile(name)
            return _Place(address=text, profile=profile, abi=PHONE_ABI, target=profile.target)
        case HostedAddress() | AttachedAddress():
            raise UserError(f"'{text}' is at Qualcomm AI Hub: nothing is pushed there", hint="leave it out of the dry run")


def _harness(place: _Place, layout: Layout, notes: _Notes) -> list[LocalFile]:
    try:
        program = built_harness(layout.programs, place.abi)
    except MissingDependencyError as error:
        notes.missing.append(str(error))
        return []
    if program is None:
        notes.to_build.append(f"the harness for {place.abi}")
        return []
    return [local_file(program)]


def _libraries(place: _Place, layout: Layout, notes: _Notes) -> list[LocalFile]:
    if place.abi is host_abi(platform.machine()):
        return [local_file(runtime_library())]
    htp_arch = place.profile.soc.htp_arch
    kit = best_kit(kits(layout), place.abi, place.target, htp_arch, compiler_build())
    if kit is None:
        notes.missing.append(f"a runtime kit for {place.abi} that runs {place.key}. Hint: see quadbench runtime fetch and add")
        return []
    return local_files(kit, (library.file for library in libraries_for(kit.artifact, place.target, htp_arch)))


def _graphs(place: _Place, bundle: Stored[Bundle], layout: Layout, notes: _Notes) -> Stored[CompiledBundle] | Stored[Bundle]:
    """Return the compiled graphs; where there are none yet those of the bundle, whose sizes are about the same."""
    state = availability(place.target)
    if state.missing:
        notes.missing.append(f"{state.missing}, to compile for {place.key}. Hint: {state.hint}")
        return bundle
    compiled = compiled_before(bundle, place.target, place.key, layout)
    if compiled is None:
        notes.to_build.append(f"the graphs for {place.key}; their bytes are given as they are in the bundle")
    return compiled or bundle
