"""Device profiles: YAML files that describe a kind of phone: how to recognise it, its chip, and the targets to compile for."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from quadbench.errors import UnknownNameError, UserError
from quadbench.host import cpu_model, shipped_folder
from quadbench.spec import Name, Problem, Spec, is_file, load, path_variable, refuse
from quadbench.target.abi import PHONE_MACHINE
from quadbench.target.targets import (
    AiHubTarget,
    HtpArch,
    LiteRtTarget,
    OnnxRuntimeTarget,
    QnnTarget,
    RunTarget,
    Target,
    target_key,
)

PROFILES_FOLDER = shipped_folder("device_profiles")
PROFILES_VARIABLE = "QUADBENCH_DEVICE_PROFILES"
LOCAL_NAME = "local"
VIRTUAL_PREFIX = "virtual:"
HOSTED_PREFIX = "hub:"
NO_EMULATOR = {"ro.boot.qemu": "0", "ro.kernel.qemu": "0"}
"""Properties that are 1 on Android's emulators, whatever phone they claim to be. Most phones lack them."""


class Soc(Spec):
    """A device's chip (vendor, names and NPU version), and the size of the device's memory in MiB."""

    vendor: str
    """The chip's vendor in lower case, such as qualcomm or mediatek."""
    model: str
    """The chip's name in the Android property ro.soc.model, if devices have this property."""
    title: str
    """The name under which the chip is sold."""
    ram_mb: int = Field(gt=0)
    """The memory of the device's smallest model in MiB, above 0."""
    htp_arch: HtpArch | None = None
    """The architecture of the chip's Hexagon tensor processor (Qualcomm's HTP), such as v79. The HTP's targets have the same.
    The default is null: the chip has no HTP."""


class DeviceProfile(Spec):
    """A kind of device: its names, its chip, and the targets (chip and runtime) that models are compiled for."""

    schema_version: Literal[1]
    """The number of the file's format: 1."""
    name: Name
    """The device's address on the command line: at most 64 lower-case letters and digits, in groups joined by hyphens."""
    title: str = Field(min_length=1)
    """The device's name in reports, not empty."""
    match: dict[str, str]
    """A device is of this kind if all these Android properties match their patterns: `*`, `?`, `[abc]`, and `|` between
    patterns of which one must match. Case matters."""
    soc: Soc
    """The chip of the device."""
    target: RunTarget
    """The target of the graphs that an attached device runs."""
    virtual_target: RunTarget
    """The target of the graphs that a virtual device on this machine runs."""
    hosted_target: AiHubTarget | None = None
    """The target of the graphs that a device of this kind at Qualcomm AI Hub runs.
    The default is null: there is no such device."""
    alternatives: tuple[Target, ...] = ()
    """Further targets for the chip. A run uses one of them if a device's address names it. The default is none."""
    properties: dict[str, str] = Field(default_factory=dict, validate_default=True)
    """Properties that a virtual device reports in addition to the plain-text patterns of `match`. The default is none."""
    notes: tuple[str, ...] = ()
    """Reservations as sentences, such as features that were not seen on hardware. The default is none."""

    @field_validator("match")
    @classmethod
    def _has_no_empty_choice(cls, match: dict[str, str]) -> dict[str, str]:
        refuse(
            Problem(location=(key,), reason=f"expected a pattern on each side of '|', found '{pattern}'")
            for key, pattern in match.items()
            if "|" in pattern and not all(one.strip() for one in pattern.split("|"))
        )
        return match

    @field_validator("properties")
    @classmethod
    def _virtual_device_matches(cls, properties: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        reported = {**_plain_patterns(info.data.get("match", {})), **properties}
        refuse(
            Problem(location=(key,), reason=f"expected a match for '{pattern}', found '{reported.get(key, 'nothing')}'")
            for key, pattern in info.data.get("match", {}).items()
            if not _fits(reported.get(key, ""), pattern)
        )
        return properties

    @model_validator(mode="after")
    def _targets_are_of_the_chip(self) -> Self:
        """Raise ValidationError if a QNN target's HTP (NPU) version is not the chip's, or LiteRT needs an HTP the chip lacks."""
        problems, there = [], f"found {self.soc.htp_arch or 'none'}"
        alternatives = ((("alternatives", number), target) for number, target in enumerate(self.alternatives))
        for location, target in ((("target",), self.target), (("virtual_target",), self.virtual_target), *alternatives):
            if isinstance(target, QnnTarget) and target.htp_arch != self.soc.htp_arch:
                reason = f"expected soc.htp_arch to be the target's {target.htp_arch}, {there}"
                problems.append(Problem(location=location, reason=reason))
            elif isinstance(target, LiteRtTarget) and target.is_for_htp and self.soc.htp_arch is None:
                reason = f"expected soc.htp_arch, the HTP of {target.soc}, such as v79; {there}"
                problems.append(Problem(location=location, reason=reason))
        refuse(problems)
        return self

    def targets(self) -> Iterator[Target]:
        """Yield a profile's targets: for attached, virtual and AI Hub devices, then alternatives. A target can occur twice."""
        yield from (self.target, self.virtual_target)
        if self.hosted_target is not None:
            yield self.hosted_target
        yield from self.alternatives

    def with_target(self, name: str) -> Self:
        """Return a copy of the profile whose attached and virtual devices run the target called `name`, such as `qnn`.

        Names are backends (`onnxruntime`, `qnn`, `litert`) and ONNX Runtime's execution providers (`cpu`, `xnnpack`); the first
        match counts. For LiteRT, virtual devices run the same file on LiteRT's CPU, as they have no NPU.

        Raises:
            UnknownNameError: the profile has no such target.
        """
        targets = self._named_targets()
        if name not in targets:
            raise UnknownNameError(f"target of {self.name}", name, targets)
        chosen = targets[name]
        virtual = LiteRtTarget(backend="litert") if isinstance(chosen, LiteRtTarget) else chosen
        return self.model_copy(update={"target": chosen, "virtual_target": virtual})

    def name_of(self, target: Target) -> str | None:
        """Return the name that selects a target in `with_target`, such as `qnn`. Return None if no name selects the target."""
        return next((name for name, named in self._named_targets().items() if named == target), None)

    def _named_targets(self) -> "dict[str, RunTarget]":
        targets: dict[str, RunTarget] = {}
        for target in self.targets():
            if isinstance(target, OnnxRuntimeTarget | QnnTarget | LiteRtTarget):
                targets.setdefault(target.backend, target)
            if isinstance(target, OnnxRuntimeTarget):
                targets.setdefault(target.execution_provider, target)
        return targets

    def matches(self, properties: Mapping[str, str]) -> bool:
        """Return whether Android properties match all patterns of the profile. Return False if the profile has no patterns."""
        return bool(self.match) and not self.mismatches(properties)

    def mismatches(self, properties: Mapping[str, str]) -> dict[str, str]:
        """Return the patterns that Android properties do not match, by property. An emulator, which can claim to be any phone,
        matches only a profile that names the property by which Android tells emulators.
        """
        wanted = {**NO_EMULATOR, **self.match}
        return {
            key: pattern for key, pattern in wanted.items() if not _fits(properties.get(key) or NO_EMULATOR.get(key, ""), pattern)
        }

    def virtual_properties(self) -> dict[str, str]:
        """Return the Android properties that the profile's virtual device reports, as a dict from name to value."""
        return {**_plain_patterns(self.match), **self.properties}


@dataclass(frozen=True, kw_only=True)
class BrokenProfile:
    """A device profile file that cannot be used: the profile's name, and the error with the file's name."""

    name: str
    error: UserError


def load_profiles() -> tuple[DeviceProfile, ...]:
    """Return all valid device profiles, sorted by name: quadbench's own and those in $QUADBENCH_DEVICE_PROFILES.

    Raises:
        UserError: the folder is missing.
    """
    return _read_profiles()[0]


def broken_profiles() -> tuple[BrokenProfile, ...]:
    """Return the device profiles that cannot be used: invalid files, and files that share a profile name."""
    return _read_profiles()[1]


def profile_names() -> tuple[str, ...]:
    """Return the names of all device profiles, including broken ones, and `local`, the name for this machine."""
    return (LOCAL_NAME, *dict.fromkeys(profile.name for profiles in _read_profiles() for profile in profiles))


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Return a device profile by its name or file path. An existing file takes precedence over a profile of the same name.

    Raises:
        SpecError: the file is invalid.
        UnknownNameError: no profile has this name.
        UserError: two files have this name, or the folder of profiles is missing.
    """
    path = Path(name_or_path)
    if is_file(path) or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return load(path, DeviceProfile)
    profiles, broken = _read_profiles()
    for one in broken:
        if one.name == path.name:
            raise one.error
    known = {profile.name: profile for profile in profiles}
    if path.name not in known:
        raise UnknownNameError("device profile", str(name_or_path), known)
    return known[path.name]


def local_profile() -> DeviceProfile:
    """Return the device profile of this machine, named `local`."""
    target = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
    cpu = cpu_model()
    ram_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return DeviceProfile(
        schema_version=1,
        name=LOCAL_NAME,
        title="this machine",
        match={},
        soc=Soc(vendor=platform.machine(), model=cpu, title=cpu, ram_mb=ram_mb),
        target=target,
        virtual_target=target,
    )


def _read_profiles() -> tuple[tuple[DeviceProfile, ...], tuple[BrokenProfile, ...]]:
    """Return two tuples: valid DeviceProfiles, sorted by name, and BrokenProfiles. Files that share a profile name are broken."""
    files, folder = sorted(PROFILES_FOLDER.glob("*.yaml")), path_variable(PROFILES_VARIABLE)
    if folder and not folder.is_dir():
        hint = "unset it, or set it to the folder of your profiles"
        raise UserError(f"${PROFILES_VARIABLE} is '{folder}', which is not a folder", hint=hint)
    read: dict[Path, DeviceProfile | UserError] = {}
    for file in (*files, *(sorted(folder.glob("*.yaml")) if folder else ())):
        try:
            read[file] = load(file, DeviceProfile)
        except UserError as error:
            read[file] = error
    names = {file: profile.name if isinstance(profile, DeviceProfile) else file.stem for file, profile in read.items()}
    profiles, broken = [], []
    for file, profile in read.items():
        others = [str(other) for other in read if other != file and names[other] == names[file]]
        if names[file] == LOCAL_NAME:
            others.append("this machine's own profile")
        if isinstance(profile, UserError):
            broken.append(BrokenProfile(name=names[file], error=profile))
        elif others:
            taken = UserError(f"{file}: the name '{names[file]}' is taken by {others[0]}", hint="rename one of them")
            broken.append(BrokenProfile(name=names[file], error=taken))
        else:
            profiles.append(profile)
    return tuple(sorted(profiles, key=lambda profile: profile.name)), tuple(broken)


def _fits(value: str, pattern: str) -> bool:
    return any(fnmatchcase(value, one.strip()) for one in pattern.split("|"))


def _plain_patterns(match: Mapping[str, str]) -> dict[str, str]:
    return {key: pattern for key, pattern in match.items() if not set(pattern) & set("*?[|")}


@dataclass(frozen=True, kw_only=True)
class KnownTarget:
    """A target and the device profiles that use it. `htp_arch` is the profiles' oldest HTP (NPU) version, None without HTP."""

    key: str
    target: Target
    profiles: tuple[str, ...]
    addresses: tuple[str, ...]
    htp_arch: str | None


def known_targets(profiles: Sequence[DeviceProfile], machine: str) -> tuple[KnownTarget, ...]:
    """Return a KnownTarget for each distinct target of `profiles`. `machine` is the CPU of this machine, as from `uname -m`."""
    known: dict[str, KnownTarget] = {}
    for profile in profiles:
        for address, target, runs_on in _uses(profile, machine):
            key = target_key(target, runs_on)
            one = known.get(key, KnownTarget(key=key, target=target, profiles=(), addresses=(), htp_arch=None))
            known[key] = replace(
                one,
                profiles=tuple(dict.fromkeys((*one.profiles, profile.name))),
                addresses=(*one.addresses, address) if address else one.addresses,
                htp_arch=min(filter(None, (one.htp_arch, profile.soc.htp_arch)), default=None),
            )
    return tuple(known.values())


def find_target(name: str, known: Sequence[KnownTarget], broken: Sequence[BrokenProfile] = ()) -> KnownTarget:
    """Return the target with this key or device address. If the address belongs to a broken profile, raise the profile's error.

    Raises:
        UnknownNameError: no target has this key or address.
        UserError: the address belongs to a broken profile; the error says what is wrong with its file.
    """
    by_name = {address: target for target in known for address in target.addresses} | {target.key: target for target in known}
    if name in by_name:
        return by_name[name]
    for profile in broken:
        if name in {f"{prefix}{profile.name}" for prefix in ("", VIRTUAL_PREFIX, HOSTED_PREFIX)}:
            raise profile.error
    raise UnknownNameError("target", name, by_name)


def _uses(profile: DeviceProfile, machine: str) -> Iterator[tuple[str | None, Target, str]]:
    """Yield (address, target, CPU name) for each target of a profile. The address is None if users cannot select the target."""
    if profile.name == LOCAL_NAME:
        yield LOCAL_NAME, profile.target, machine
        return
    yield profile.name, profile.target, PHONE_MACHINE
    yield f"{VIRTUAL_PREFIX}{profile.name}", profile.virtual_target, machine
    if profile.hosted_target is not None:
        yield f"{HOSTED_PREFIX}{profile.name}", profile.hosted_target, PHONE_MACHINE
    for alternative in profile.alternatives:
        key, name = target_key(alternative, PHONE_MACHINE), profile.name_of(alternative)
        yield f"{profile.name}?target={name}" if name else None, alternative, PHONE_MACHINE
        virtual = profile.with_target(name).virtual_target if name else None
        if virtual and target_key(virtual, machine) == key:  # an emulator runs what the phone does
            yield f"{VIRTUAL_PREFIX}{profile.name}?target={name}", virtual, machine
