"""Facts needed to trust or repeat a run: its launches, tool versions, settings, device states and digests."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from quadbench.artifacts import DeviceFacts, RunRecord, RunResult, Status
from quadbench.artifacts.kit import Role, role_of
from quadbench.artifacts.run_record import LIBRARY_PREFIX
from quadbench.report.formatting import Unit, plural, show
from quadbench.report.launches import setups_of, step_of

MAX_LISTED = 200  # OK launches, and as many failed ones


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A row of a run's launches table: position in the run, launch record, and duration in seconds."""

    position: int
    record: RunRecord
    seconds: float

    @property
    def is_ok(self) -> bool:
        """Return whether the launch ended OK. Reports ignore the values of other launches."""
        return self.record.status is Status.OK


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A named value from a run, such as a tool's version. `where` says where the value applies, such as on which devices."""

    name: str
    value: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceConditions:
    """A device's state readings by name, before its first launch and after its last; None for a missing reading."""

    device: DeviceFacts
    readings: tuple[tuple[str, str | None, str | None], ...]


def launch_rows(result: RunResult) -> tuple[Launch, ...]:
    """Return the rows of a run's launches table, in the order measured."""
    return tuple(
        Launch(position=position, record=record, seconds=(record.ended_at - record.started_at).total_seconds())
        for position, record in enumerate(result.records_in_order, start=1)
    )


def digests(result: RunResult) -> tuple[Fact, ...]:
    """Return the digests of a run's recipes, bundles, compiled bundles and quantization profiles, each as a `Fact`."""
    setups = setups_of(result)
    compiled = dict.fromkeys((record.target, record.compiled_digest) for record in result.records_in_order)
    return (
        *(Fact(name="Recipe", value=each.bundle.recipe_digest, where=each.where) for each in setups),
        *(Fact(name="Bundle", value=each.bundle.digest, where=each.where) for each in setups),
        *(Fact(name="Compiled bundle", value=digest, where=target) for target, digest in compiled),
        *(Fact(name="Quantization profile", value=each.bundle.profile.sha256, where=each.where) for each in setups),
    )


def versions(result: RunResult) -> tuple[Fact, ...]:
    """Return the versions of build tools and launched software, each as a `Fact`. System libraries are one Fact: their number."""
    launches = _by_device(result, lambda record: record.versions, _shown)
    known_versions = {(fact.name, fact.value) for fact in launches}
    build = [
        Fact(name=f"quad.{name}", value=value, where="build")
        for name, value in sorted(result.bundle.tool_versions.items())
        if (f"quad.{name}", value) not in known_versions
    ]
    return (*build, *launches)


def settings(result: RunResult) -> tuple[Fact, ...]:
    """Return a `Fact` per graph runtime setting and value, such as 4 threads, with the addresses of the devices that used it."""
    return _by_device(result, lambda record: record.settings, dict.items)


def _by_device(
    result: RunResult, texts: Callable[[RunRecord], dict[str, str]], shown: Callable[[dict[str, str]], Iterable[tuple[str, str]]]
) -> tuple[Fact, ...]:
    """Return a `Fact` per distinct (name, value) pair with its device addresses. `texts` gives a launch's {name: value}, `shown`
    the pairs to list of it. Launches often share one dict, which is looked at once for each device.
    """
    distinct = {(record.device.address, id(texts(record))): texts(record) for record in result.records_in_order}
    addresses_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (address, _), of_launch in distinct.items():
        for name, value in shown(of_launch):
            addresses = addresses_of[name, value]
            if address not in addresses:
                addresses.append(address)
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
        yield "other loaded libraries", f"{of_system}, named in the record"


def device_conditions(result: RunResult) -> tuple[DeviceConditions, ...]:
    """Return a DeviceConditions (state readings before the first and after the last launch) per device with recorded state."""
    states = defaultdict[str, list[dict[str, str]]](list)
    for record in result.records_in_order:
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
    """The launches that a report lists, in the order measured. `left_out` says which launches are omitted; empty if none."""

    launches: tuple[Launch, ...]
    left_out: str


def launch_list(launches: Sequence[Launch]) -> LaunchList:
    """Return the launches that a report lists: at most 200 OK launches, evenly spaced, and the first 200 failed launches."""
    fine = [launch for launch in launches if launch.is_ok]
    wrong = [launch for launch in launches if not launch.is_ok]
    step = step_of(len(fine), MAX_LISTED)
    shown = sorted((*fine[::step], *wrong[:MAX_LISTED]), key=lambda launch: launch.position)
    words = []
    if step > 1:
        words.append(f"of {plural(len(fine), 'OK launch')}, one in {step} is listed")
    if len(wrong) > MAX_LISTED:
        words.append(f"of {plural(len(wrong), 'failed launch')}, the first {MAX_LISTED} are listed")
    return LaunchList(launches=tuple(shown), left_out="; ".join(words))
