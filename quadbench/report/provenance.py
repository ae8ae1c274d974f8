"""Provenance: launches, versions, device states and digests, as a reader needs them to trust or repeat a run."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, Status
from quadbench.artifacts.kit import Role, role_of
from quadbench.artifacts.run_record import LIBRARY_PREFIX
from quadbench.report.formatting import Unit, plural, show
from quadbench.report.launches import setups_of, step_of

MOST_LISTED = 200  # launches that are OK, and as many that are not


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A line of the launches table."""

    position: int
    record: RunRecord
    seconds: float

    @property
    def is_ok(self) -> bool:
        """Say whether its figures count."""
        return self.record.status is Status.OK


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A name with its value, and where it holds."""

    name: str
    value: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceConditions:
    """The readings of a device's state by name, before its first launch and after its last; None where one was not read."""

    device: DeviceFacts
    readings: tuple[tuple[str, str | None, str | None], ...]


def launch_rows(result: RunResult) -> tuple[Launch, ...]:
    """Return every launch in the order in which it was measured."""
    return tuple(
        Launch(position=position, record=record, seconds=(record.ended_at - record.started_at).total_seconds())
        for position, record in enumerate(result.in_order, start=1)
    )


def digests(result: RunResult) -> tuple[Fact, ...]:
    """Return the digests of the recipe, the bundles and the profile of the run."""
    setups = setups_of(result)
    compiled = dict.fromkeys((record.target, record.compiled_digest) for record in result.in_order)
    return (
        *(Fact(name="Recipe", value=each.bundle.recipe_digest, where=each.where) for each in setups),
        *(Fact(name="Bundle", value=each.bundle.digest, where=each.where) for each in setups),
        *(Fact(name="Compiled bundle", value=digest, where=target) for target, digest in compiled),
        *(Fact(name="Quantization profile", value=each.bundle.profile.sha256, where=each.where) for each in setups),
    )


def versions(result: RunResult) -> tuple[Fact, ...]:
    """Return the tools of the build, then those of the launches; a version that differs between devices is listed for each.

    Of the libraries that a harness loaded those are shown that run graphs, with their build ids, and of the system's the number.
    """
    launches = _by_device(result, {record.record_id: dict(_shown(record.versions)) for record in result.records})
    told = {(fact.name, fact.value) for fact in launches}
    build = [
        Fact(name=f"quad.{name}", value=value, where="build")
        for name, value in sorted(result.bundle.tool_versions.items())
        if (f"quad.{name}", value) not in told
    ]
    return (*build, *launches)


def settings(result: RunResult) -> tuple[Fact, ...]:
    """Return the options with which the launches ran the graphs; none for records that are older than these options."""
    return _by_device(result, {record.record_id: record.settings for record in result.records})


def _by_device(result: RunResult, texts: Mapping[str, Mapping[str, str]]) -> tuple[Fact, ...]:
    """Return names and values of records, by record id, each once with the addresses of its devices."""
    addresses_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in result.in_order:
        for name, value in texts[record.record_id].items():
            addresses = addresses_of[name, value]
            if record.device.address not in addresses:
                addresses.append(record.device.address)
    return tuple(Fact(name=name, value=value, where=", ".join(at)) for (name, value), at in sorted(addresses_of.items()))


def _shown(versions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    of_system = 0
    for name, value in versions.items():
        library = name.removeprefix(LIBRARY_PREFIX)
        if library == name:
            yield name, value
        elif role_of(library) is not Role.SUPPORT:
            yield f"loaded {library}", value.rpartition(", ")[2]
        else:
            of_system += 1
    if of_system:
        yield "loaded beside them", f"{of_system} libraries, named in the record"


def device_conditions(result: RunResult) -> tuple[DeviceConditions, ...]:
    """Return the readings of each device before its first launch and after its last one."""
    states = defaultdict[str, list[dict[str, str]]](list)
    for record in result.in_order:
        if record.state:
            states[record.device.serial].append(record.state)
    return tuple(
        DeviceConditions(device=device, readings=tuple(_readings(read[0], read[-1])))
        for device in result.devices
        if (read := states.get(device.serial))
    )


def _readings(first: dict[str, str], last: dict[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    before = {key.removeprefix("before."): value for key, value in first.items() if not key.startswith("after.")}
    after = {key.removeprefix("after."): value for key, value in last.items() if key.startswith("after.")}
    for name in sorted(before | after):
        pair = before.get(name), after.get(name)
        if name.endswith("_bytes"):
            yield f"{name.removesuffix('_bytes')}, MB", _in_mb(pair[0]), _in_mb(pair[1])
        else:
            yield name, *pair


def _in_mb(text: str | None) -> str | None:
    return show(float(text), Unit.MEGABYTES) if text is not None and text.isdecimal() else text


@dataclass(frozen=True, kw_only=True)
class LaunchList:
    """Launches in the order in which they were measured. `left_out` says which are not among them; nothing where all are."""

    launches: tuple[Launch, ...]
    left_out: str


def launch_list(launches: Sequence[Launch]) -> LaunchList:
    """Return the launches that a page lists: all, or of very many an even sample of good ones and the first failed ones."""
    fine = [launch for launch in launches if launch.is_ok]
    wrong = [launch for launch in launches if not launch.is_ok]
    step = step_of(len(fine), MOST_LISTED)
    shown = sorted((*fine[::step], *wrong[:MOST_LISTED]), key=lambda launch: launch.position)
    words = []
    if step > 1:
        words.append(f"of {plural(len(fine), 'launch')} that are OK one in {step} is listed")
    if len(wrong) > MOST_LISTED:
        words.append(f"of {plural(len(wrong), 'launch')} that are not the first {MOST_LISTED} are listed")
    return LaunchList(launches=tuple(shown), left_out="; ".join(words))
