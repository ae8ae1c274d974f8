"""Device profile: what a phone is recognised by, what is in it, and what runs on it, as a YAML file says it."""

import os
import platform
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from quadbench.errors import UnknownNameError, UserError
from quadbench.spec import Name, Problem, Spec, load, refuse
from quadbench.target.targets import AiHubTarget, OnnxRuntimeTarget, QnnTarget, RunTarget, Target

PROFILES_FOLDER = Path(__file__).parent / "device_profiles"
PROFILES_VARIABLE = "QUADBENCH_DEVICE_PROFILES"
LOCAL_NAME = "local"


class Soc(Spec):
    """The chip."""

    vendor: str
    model: str
    """As in the property ro.soc.model, where the device has one."""
    title: str
    """The name it is sold under."""
    ram_mb: int = Field(gt=0)
    """Memory of the smallest model, in MiB."""
    htp_arch: str | None = Field(default=None, pattern=r"^v[0-9]{2}$")
    """Qualcomm: architecture of the Hexagon tensor processor."""
    soc_id: int | None = Field(default=None, gt=0)
    """Qualcomm: the chip's number in the vendor's SDK."""


class DeviceProfile(Spec):
    """A kind of device."""

    schema_version: Literal[1]
    name: Name
    """Its address on the command line."""
    title: str = Field(min_length=1)
    match: dict[str, str]
    """Android property -> pattern (`*`, `?`, `[abc]`, upper and lower case differ); all must fit."""
    soc: Soc
    target: RunTarget
    """What an attached device runs."""
    virtual_target: RunTarget
    """What a virtual device runs on this machine."""
    hosted_target: AiHubTarget | None = None
    """What runs on a device of this kind at Qualcomm AI Hub."""
    alternatives: tuple[Target, ...] = ()
    """What else its chip can be compiled for; a run uses them where a virtual device's address asks for it."""
    properties: dict[str, str] = Field(default_factory=dict, validate_default=True)
    """What a virtual device reports beyond the patterns of `match` that are plain text."""
    notes: tuple[str, ...] = ()
    """What has not been seen on hardware, and other reservations."""

    @field_validator("properties")
    @classmethod
    def _virtual_device_matches(cls, properties: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        reported = {**_plain_patterns(info.data.get("match", {})), **properties}
        refuse(
            Problem(location=(key,), reason=f"expected what fits match's '{pattern}', found '{reported.get(key, 'nothing')}'")
            for key, pattern in info.data.get("match", {}).items()
            if not fnmatchcase(reported.get(key, ""), pattern)
        )
        return properties

    def targets(self) -> Iterator[Target]:
        """Everything that this kind of device can be compiled for, with repetitions."""
        yield from (self.target, self.virtual_target)
        if self.hosted_target is not None:
            yield self.hosted_target
        yield from self.alternatives

    def with_virtual_target(self, backend: str) -> Self:
        """The profile with another of its targets on virtual devices: the first of that backend that this machine can run.

        Raises: UnknownNameError.
        """
        targets = {t.backend: t for t in reversed(tuple(self.targets())) if isinstance(t, OnnxRuntimeTarget | QnnTarget)}
        if backend not in targets:
            raise UnknownNameError(f"target of virtual:{self.name}", backend, targets)
        return self.model_copy(update={"virtual_target": targets[backend]})

    def matches(self, properties: Mapping[str, str]) -> bool:
        """Whether a device with these properties is of this kind; without patterns none is."""
        return bool(self.match) and all(fnmatchcase(properties.get(key, ""), pattern) for key, pattern in self.match.items())

    def virtual_properties(self) -> dict[str, str]:
        """What a virtual device of this kind reports."""
        return {**_plain_patterns(self.match), **self.properties}


def load_profiles() -> tuple[DeviceProfile, ...]:
    """All profiles by name: those that come with quadbench, and those in the folder $QUADBENCH_DEVICE_PROFILES.

    Raises: SpecError, UserError where the folder is missing or two files have the same name in them.
    """
    found: dict[str, Path] = {}
    profiles: list[DeviceProfile] = []
    for file in _profile_files():
        profile = load(file, DeviceProfile)
        if profile.name in (*found, LOCAL_NAME):
            other = found.get(profile.name, "this machine's own profile")
            raise UserError(f"{file}: the name '{profile.name}' is taken by {other}", hint="rename one of them")
        found[profile.name] = file
        profiles.append(profile)
    return tuple(sorted(profiles, key=lambda profile: profile.name))


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """One profile, by its name or from a file; an existing file wins.

    Raises: SpecError, UnknownNameError, UserError.
    """
    path = Path(name_or_path)
    if path.is_file() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return load(path, DeviceProfile)
    profiles = {profile.name: profile for profile in load_profiles()}
    if path.name not in profiles:
        raise UnknownNameError("device profile", str(name_or_path), profiles)
    return profiles[path.name]


def local_profile() -> DeviceProfile:
    """This machine, as the device `local`."""
    target = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
    cpu = _cpu_title()
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


def _profile_files() -> list[Path]:
    files = sorted(PROFILES_FOLDER.glob("*.yaml"))
    folder = os.environ.get(PROFILES_VARIABLE)
    if folder:
        if not Path(folder).is_dir():
            raise UserError(
                f"${PROFILES_VARIABLE} is '{folder}', which is not a folder", hint="unset it, or name the folder of your profiles"
            )
        files += sorted(Path(folder).glob("*.yaml"))
    return files


def _plain_patterns(match: Mapping[str, str]) -> dict[str, str]:
    return {key: pattern for key, pattern in match.items() if not set(pattern) & set("*?[")}


def _cpu_title() -> str:
    """As the kernel names it; ARM kernels often do not."""
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
