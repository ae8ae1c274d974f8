"""Bring-up: an address -> what works on that device, tried there, from its first command to a graph on its NPU."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version

from quadbench.artifacts.names import one_line
from quadbench.compile.availability import availability
from quadbench.devices import Device, list_devices
from quadbench.devices.addresses import Address, AttachedAddress
from quadbench.devices.connections import SERIAL_VARIABLE, connect
from quadbench.doctor.checks import Answer, BringUp, CheckStatus, DeviceCheck, ExaminedDevice, PlannedCheck, not_tried
from quadbench.doctor.device_checks import graph_checks, system_checks
from quadbench.errors import DeviceError, LeaseError, MissingDependencyError, UserError
from quadbench.farm.held import leased
from quadbench.harness.program import built_harness
from quadbench.observer import Observer
from quadbench.results.layout import Layout
from quadbench.rollout.equipment import kit_for
from quadbench.rollout.forecast import kind_at
from quadbench.spec import variable

_TIMEOUT_S = 20.0
_UNKNOWN = "unknown"
_PROPERTIES = {
    "Android": "ro.build.version.release",
    "security patch": "ro.build.version.security_patch",
    "vendor": "ro.vendor.build.fingerprint",
    "platform": "ro.board.platform",
}
"""Properties that tell one system from another, drivers among it."""


def bring_up(address: Address, *, layout: Layout, observer: Observer) -> BringUp:
    """Try everything on a device. Whatever does not work stands in it; serials and home folders are left out.

    Raises:
        UserError: the address means no device that files can be pushed to, or its profile is wrong.
        LeaseError: somebody else has the device; nothing was tried.
    """
    started_at = datetime.now(UTC)
    try:
        with connect([address], layout=layout) as devices, leased(devices, layout, "doctor", to_examine=True):
            (device,) = devices
            facts, serials = device.facts, [device.serial] if device.family == "adb" else []
            told = {name: getattr(facts, name) for name in ExaminedDevice.model_fields if name != "abi"}
            examined: ExaminedDevice | None = ExaminedDevice(abi=device.abi, **told)
            checks = _checked(device, layout, observer)
    except LeaseError:
        raise  # it names a person, so it is no part of the document
    except (DeviceError, MissingDependencyError) as error:
        named = address.serial if isinstance(address, AttachedAddress) else None
        attached = (row.serial for row in list_devices() if row.is_phone)  # which a message may name
        examined, serials = None, [*attached, *filter(None, (named, variable(SERIAL_VARIABLE)))]
        checks = [
            DeviceCheck(name="connection", status=CheckStatus.FAILED, said=error.message, hint=error.hint),
            *(check.made(observer) for check in _without_device(address, layout)),
        ]
    return BringUp(
        quadbench=version("quadbench"),
        started_at=started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        address=address.text,
        device=examined,
        checks=tuple(checks),
    ).impersonal(serials)


def _checked(device: Device, layout: Layout, observer: Observer) -> list[DeviceCheck]:
    def system() -> Answer:
        kernel, told = device.shell(["uname", "-r"], _TIMEOUT_S).stdout, device.properties()
        read = {"kernel": one_line(kernel) or _UNKNOWN}
        read |= {name: one_line(told[key]) for name, key in _PROPERTIES.items() if told.get(key)}
        return Answer(said=", ".join(f"{name} {text}" for name, text in read.items()), versions=read)

    checks = (
        PlannedCheck(name="connection", act=lambda: Answer(said=f"{device.facts.title}, {device.abi}")),
        PlannedCheck(name="system", act=system),
        *system_checks(device),
        *graph_checks(device, layout, observer),
    )
    return [check.made(observer) for check in checks]


def _without_device(address: Address, layout: Layout) -> Iterator[PlannedCheck]:
    """Yield what can be tried of this machine alone for a kind of device, where no device answers; nothing of an unknown kind."""
    try:
        kind = kind_at(address)
    except UserError:
        return

    def harness() -> Answer:
        is_built = built_harness(layout.programs, kind.abi)
        return Answer(said=f"is {'built' if is_built else 'there to be built'} for {kind.abi}")

    def kit() -> Answer:
        choice = kit_for(kind, layout)
        return Answer(said=f"kit {choice.kit.artifact.digest[:12]}" if choice else "this machine's own libraries")

    def compiler() -> Answer:
        state = availability(kind.target)
        if not state.is_ready:
            return not_tried(f"to compile for {kind.key}, {state.missing} is needed", state.hint)
        return Answer(said=f"{kind.key}, {' '.join(filter(None, (kind.target.backend, state.version)))}")

    yield PlannedCheck(name="harness", act=harness)
    yield PlannedCheck(name="runtime kit", act=kit)
    yield PlannedCheck(name="compiler", act=compiler)
