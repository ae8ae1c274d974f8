"""Dry run: predict what a run would build, push and launch on each device, and what the run lacks. Nothing is changed."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from quadbench.artifacts import MIB, StoredBundle, StoredCompiled, Variant
from quadbench.compile import find_compiled
from quadbench.compile.availability import availability
from quadbench.deploy import LocalFile, space_bytes
from quadbench.devices.addresses import (
    Address,
    AttachedAddress,
    HostedAddress,
    LocalAddress,
    VirtualAddress,
    refuse_twice,
    virtual_serial,
)
from quadbench.devices.recording import open_scenario
from quadbench.devices.virtual import missing_dependencies
from quadbench.errors import MissingDependencyError, UserError
from quadbench.harness.program import find_harness
from quadbench.measure.launch_schedule import launches_of_bundle
from quadbench.quad.cache import find_bundle
from quadbench.quad.inputs import check_devices
from quadbench.recipe import Recipe, RunSettings
from quadbench.recipe.settings import W8A16, Mixed
from quadbench.results.layout import Layout
from quadbench.rollout.equipment import ADAPTERS, HARNESS, RUNTIME, DeviceKind, host_libraries, kit_for, local_file, push_set
from quadbench.spec import Problem
from quadbench.target.abi import PHONE_ABI, Abi, host_abi
from quadbench.target.profile import LOCAL_NAME, DeviceProfile, load_profile, load_profiles, local_profile
from quadbench.target.targets import LiteRtTarget, QnnTarget, Target


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A prediction of what a run would build, push and launch on a device. `push_bytes` is a dict from file category to bytes.

    `adapter_bytes` has each adapter's size by name, over all dtypes that are pushed. Sizes of things `to_build` are unknown yet.
    Anything `missing` prevents the run.
    """

    address: str
    title: str
    abi: Abi
    target: str
    bundle: str | None
    launches: int | None
    images: int | None
    push_bytes: dict[str, int]
    adapter_bytes: dict[str, int]
    to_build: tuple[str, ...]
    missing: tuple[str, ...]


def forecast(recipe: Recipe, addresses: Sequence[Address], *, layout: Layout) -> list[Forecast]:
    """Return a Forecast per device: what a run of a recipe would build, push and launch. Phones need not be attached.

    Raises:
        UserError: an address has no profile, means a device given twice, or is at AI Hub, where no files are pushed.
        SpecError: a scenario is wrong.
        ArtifactError: an existing bundle, compiled bundle or kit is damaged.
    """
    kinds = _kinds(addresses)
    check_devices(recipe)
    bundles = [find_bundle(recipe.for_device(kind.profile.name), layout) for kind in kinds]
    return [_forecast(*one, recipe.terms, layout) for one in zip(kinds, addresses, bundles, strict=True)]


def forecast_of_bundle(
    bundle: StoredBundle, terms: RunSettings, addresses: Sequence[Address], *, layout: Layout
) -> list[Forecast]:
    """Return a Forecast per device of measuring an existing bundle. Adapters added to the bundle later are included.

    Raises:
        UserError, SpecError, ArtifactError: as `forecast`.
    """
    return [_forecast(*one, bundle, terms, layout) for one in zip(_kinds(addresses), addresses, strict=True)]


def _kinds(addresses: Sequence[Address]) -> list[DeviceKind]:
    """Return each device's profile, ABI, serial and compile target. Raise for an empty list, or for a device given twice."""
    if not addresses:
        raise UserError("a dry run does not look for attached phones", hint="name the devices, for example --devices s25")
    taken: dict[str, str] = {}
    kinds = []
    for address in addresses:
        kinds.append(kind := kind_at(address))
        refuse_twice(kind.address, kind.serial, taken)
        taken[kind.serial] = kind.address
    return kinds


def _forecast(kind: DeviceKind, address: Address, bundle: StoredBundle | None, terms: RunSettings, layout: Layout) -> Forecast:
    to_build, missing = list[str](), list[str]()
    if isinstance(address, VirtualAddress):
        missing.extend(str(error) for error in missing_dependencies(kind.profile, address))
    harness = _harness(kind, layout, to_build, missing)
    libraries, compiler = _libraries(kind, layout, missing), availability(kind.target)
    if compiler.missing:
        missing.append(f"{compiler.missing}, to compile for {kind.key}. Hint: {compiler.hint}")
    push, launches, adapters = {HARNESS: harness, RUNTIME: libraries}, None, {}
    if bundle is None:
        to_build.append("the bundle")
    else:
        graphs = _graphs(kind, bundle, layout, to_build) if compiler.is_ready else bundle
        push = push_set(harness, libraries, graphs, bundle)
        launches = launches_of_bundle(terms, bundle.artifact, seed="")
        pushed, adapters = {file.sha256 for file in push[ADAPTERS]}, {adapter.name: 0 for adapter in bundle.artifact.adapters}
        for adapter in bundle.artifact.adapters:
            adapters[adapter.name] += adapter.file.size_bytes if adapter.file.sha256 in pushed else 0
    needed_bytes = space_bytes(chain(*push.values()))
    if isinstance(address, VirtualAddress) and address.data_mb and needed_bytes > address.data_mb * MIB:
        room = f"space: /data of the device has {address.data_mb} MB; the run needs {needed_bytes / MIB:.1f} MB"
        missing.append(f"{room}. Hint: increase it with ?data_mb")
    return Forecast(
        address=kind.address,
        title=kind.profile.title,
        abi=kind.abi,
        target=kind.key,
        bundle=bundle.artifact.digest if bundle else None,
        launches=len(launches) if launches else None,
        images=sum(launch.images for launch in launches) if launches else None,
        push_bytes=_sizes(push),
        adapter_bytes=adapters,
        to_build=tuple(to_build),
        missing=tuple(missing),
    )


def _sizes(push: Mapping[str, Sequence[LocalFile]]) -> dict[str, int]:
    """Return the total size in bytes of each file category, such as `adapters`. A file counts only in its first category."""
    first = {file.sha256: what for what, files in reversed(list(push.items())) for file in files}
    return {
        what: sum({f.sha256: f.size_bytes for f in files if first[f.sha256] == what}.values()) for what, files in push.items()
    }


def kind_at(address: Address) -> DeviceKind:
    """Return the DeviceKind (profile, ABI, serial, compile target) for a device's address. Do not connect to the device.

    Raises:
        UserError: the address has no profile, or means a device at AI Hub.
    """
    text, host = address.text, host_abi(platform.machine())
    match address:
        case LocalAddress():
            profile = local_profile()
            return DeviceKind(address=text, serial=LOCAL_NAME, profile=profile, abi=host, target=profile.target)
        case VirtualAddress(profile=name, target=target, is_arm64=is_arm64, scenario=scenario):
            profile, abi = _profile(name, target), Abi.ARM64_LINUX if is_arm64 else host
            if scenario:
                open_scenario(scenario)
            serial = virtual_serial(profile)
            return DeviceKind(address=text, serial=serial, profile=profile, abi=abi, target=profile.virtual_target)
        case AttachedAddress(profile=name, target=target):
            address.require_plain()
            profile = _profile(name, target)
            serial = address.serial or profile.name
            return DeviceKind(address=text, serial=serial, profile=profile, abi=PHONE_ABI, target=profile.target)
        case HostedAddress():
            raise UserError(f"'{text}' is at Qualcomm AI Hub: no files are pushed there", hint="leave it out of the dry run")


def _profile(name: str, target: str | None) -> DeviceProfile:
    profile = load_profile(name)
    return profile.with_target(target) if target else profile


def _harness(kind: DeviceKind, layout: Layout, to_build: list[str], missing: list[str]) -> list[LocalFile]:
    try:
        program = find_harness(layout.programs, kind.abi)
    except MissingDependencyError as error:
        missing.append(str(error))
        return []
    if program is None:
        to_build.append(f"the harness for {kind.abi}")
        return []
    return [local_file(program)]


def _libraries(kind: DeviceKind, layout: Layout, missing: list[str]) -> list[LocalFile]:
    try:
        choice = kit_for(kind, layout)
    except MissingDependencyError as error:
        missing.append(str(error))
        return []
    return choice.files if choice else host_libraries(kind.target)


def _graphs(kind: DeviceKind, bundle: StoredBundle, layout: Layout, to_build: list[str]) -> StoredCompiled | StoredBundle:
    """Return the compiled bundle stored for a device's target. If there is none, add a text to `to_build`; return `bundle`."""
    compiled = find_compiled(bundle, kind.target, kind.key, layout)
    if compiled is None:
        to_build.append(f"the graphs for {kind.key}; the sizes below are those in the bundle")
    return compiled or bundle


def device_problems(recipe: Recipe, addresses: Sequence[Address]) -> Iterator[Problem]:
    """Yield each Problem that would keep a recipe from running on devices. Only read addresses and profiles; do not connect.

    Raises:
        UserError: an address names a target that its profile lacks.
    """
    known = {profile.name for profile in load_profiles()}
    for address in addresses:
        if isinstance(address, AttachedAddress):
            address.require_plain()
        if isinstance(address, VirtualAddress | AttachedAddress) and address.profile in known:  # others are serials
            kind = kind_at(address)
            yield from target_problems_of(recipe, kind.profile.name, kind.target, kind.address)
            is_emulated = isinstance(address, VirtualAddress) and isinstance(kind.target, QnnTarget)
            if is_emulated and Variant.CONTEXT_SHARED in recipe.baselines:
                reason = f"'{kind.address}' is Qualcomm's emulator, which cannot load a context of several graphs"
                yield Problem(location=("baselines", recipe.baselines.index(Variant.CONTEXT_SHARED.value)), reason=reason)


def target_problems_of(recipe: Recipe, profile: str | None, target: Target, name: str) -> Iterator[Problem]:
    """Yield a Problem for a baseline or activations that `target` cannot run. Messages call the target `name`."""
    if Variant.CONTEXT_SHARED in recipe.baselines and not isinstance(target, QnnTarget):
        index = recipe.baselines.index(Variant.CONTEXT_SHARED.value)
        yield Problem(
            location=("baselines", index), reason=f"'{name}' cannot keep several graphs in one context; Qualcomm's HTP can"
        )
    own = recipe.devices.get(profile) if profile else None
    of_devices = own.precision if own else None
    activations = (of_devices or recipe.precision).activations
    fits = isinstance(activations, W8A16) or (isinstance(activations, Mixed) and not activations.int8_percent)
    if isinstance(target, LiteRtTarget) and not fits:
        place = ("devices", str(profile), "precision") if of_devices else ("precision",)
        reason = f"'{name}' runs graphs with LiteRT, which needs 16 bits for all activations; expected {{scheme: w8a16}}"
        yield Problem(location=(*place, "activations"), reason=f"{reason}, found {{scheme: {activations.scheme}}}")
