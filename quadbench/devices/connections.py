"""Connect to devices by their addresses, and list all devices that can be addressed."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import assert_never

from quadbench.artifacts import DeviceFacts
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.adb import AdbDevice, read_output, read_properties
from quadbench.devices.adb_protocol import AdbServer, user_server
from quadbench.devices.addresses import (
    Address,
    AttachedAddress,
    HostedAddress,
    LocalAddress,
    Phone,
    VirtualAddress,
    attached_phone,
    choose_phone,
    parse_address,
    refuse_twice,
    virtual_serial,
)
from quadbench.devices.android_reports import ABI_PROPERTY, AttachedDevice
from quadbench.devices.description import describe_phone
from quadbench.devices.device import Device
from quadbench.devices.local import open_local
from quadbench.devices.scenario import VIRTUAL_PROPERTY
from quadbench.devices.virtual import open_virtual
from quadbench.errors import DeviceError, DeviceNotFoundError, QuadbenchError, UserError, quote
from quadbench.host import device_lock
from quadbench.results.layout import Layout
from quadbench.spec import variable
from quadbench.target.abi import PHONE_ABI, PHONE_MACHINE, Abi
from quadbench.target.profile import HOSTED_PREFIX, LOCAL_NAME, VIRTUAL_PREFIX, DeviceProfile, load_profile, load_profiles
from quadbench.target.targets import AiHubTarget, target_key

SERIAL_VARIABLE = "ANDROID_SERIAL"
_ALWAYS_THERE = ("virtual", "hosted")  # states of rows that exist for each profile
_PROPERTY_CHARACTERS = 200  # limit for a device property; a build fingerprint takes 80
_SERIAL_CHARACTERS = 128  # a phone paired for wireless debugging takes about 50
MAX_PHONES = 256
"""Limit on the attached phones that are examined. A USB controller has room for 127 devices."""
MAX_PARALLEL_QUERIES = 16
ASK_TIMEOUT_S = 60.0  # for all phones together; a healthy one answers within a second

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """A row of the device list. `profile` is the name of the matching device profile, or None if no profile matches."""

    address: str
    serial: str
    state: str
    model: str
    profile: str | None
    chip: str | None = None
    android_release: str | None = None
    abi: str | None = None

    @property
    def is_phone(self) -> bool:
        """Return True for an attached phone, False for virtual and hosted devices and this machine."""
        return self.state not in _ALWAYS_THERE and self.address != LOCAL_NAME


@dataclass(frozen=True, kw_only=True)
class HostedPhone:
    """A phone at Qualcomm AI Hub, with its address, its device profile and its compile target."""

    address: str
    profile: DeviceProfile
    target: AiHubTarget

    @property
    def key(self) -> str:
        """Return the key of the phone's compile target, such as `ai-hub-samsung-galaxy-s25-family-precompiled-qnn-onnx`."""
        return target_key(self.target, PHONE_MACHINE)


@contextlib.contextmanager
def connect(
    addresses: Sequence[Address],
    *,
    layout: Layout,
    profiles: Sequence[DeviceProfile] | None = None,
    left_out: dict[str, QuadbenchError] | None = None,
) -> Iterator[list[Device]]:
    """Connect to the devices in the order of `addresses` and yield a list of them. Close the devices when the `with` block ends.

    Without addresses, $ANDROID_SERIAL is used. Phones are matched against `profiles`, by default all known ones. If `left_out` is
    given, unreachable devices are put there with their errors, and the result may be empty.

    Raises:
        UserError: $ANDROID_SERIAL is not an address, a profile lacks a target, or two addresses mean the same device.
        DeviceNotFoundError: no attached phone has the address.
        DeviceError: a device is in use by another command, is not ready or does not start.
        MissingDependencyError: a program that virtual devices need is not installed.
    """
    if not addresses and (serial := variable(SERIAL_VARIABLE)):
        addresses = [parse_address(serial)]
    if not addresses:
        raise UserError("no device was given", hint="name local, virtual:<profile>, or an attached phone; see: quadbench devices")
    known = load_profiles() if profiles is None else profiles
    with contextlib.ExitStack() as stack:
        phones = _Phones(known) if any(isinstance(address, AttachedAddress) for address in addresses) else None
        devices: list[Device] = []
        for address in addresses:
            try:
                device = stack.enter_context(_open(address, layout, known, phones, devices))
            except DeviceError as error:
                if left_out is None:
                    raise
                left_out[address.text] = error
                continue
            log.info("connected %s: %s, serial %s", address, device.facts.title, device.serial)
            devices.append(device)
        yield devices


def hosted_phone(address: HostedAddress) -> HostedPhone:
    """Load the device profile that an address `hub:<profile>` names. Return its phone at Qualcomm AI Hub as a HostedPhone.

    Raises:
        UnknownNameError, SpecError: the device profile does not exist, or is invalid.
        UserError: the profile has no hosted_target.
    """
    profile = load_profile(address.profile)
    if profile.hosted_target is None:
        raise UserError(f"'{address}': the profile '{profile.name}' has no hosted_target", hint="see docs/compilers.md")
    return HostedPhone(address=address.text, profile=profile, target=profile.hosted_target)


def list_devices() -> list[DeviceRow]:
    """Return a DeviceRow for this machine and for each attached phone (in any state), virtual device and AI Hub phone.

    If no adb server can be reached or started, log a warning and list the others.
    """
    known = load_profiles()
    rows: list[DeviceRow] = []
    try:
        rows += [_phone_row(phone, known) for phone in _Phones(known).phones]
    except DeviceError as error:
        log.warning("attached phones are not listed: %s", error)
    virtual = [_kind_row("virtual", VIRTUAL_PREFIX, profile, virtual_serial(profile)) for profile in known]
    hosted = [_kind_row("hosted", HOSTED_PREFIX, one, one.hosted_target.device) for one in known if one.hosted_target]
    local = DeviceRow(address=LOCAL_NAME, serial=LOCAL_NAME, state="device", model="this machine", profile=LOCAL_NAME)
    return [*rows, *virtual, *hosted, local]


def describe_attached(serial: str) -> tuple[str, list[str]]:
    """Return a device profile of the attached phone with this adb serial as YAML text, and the names of profiles that match it.

    Raises:
        DeviceNotFoundError: no such phone is attached.
        DeviceError: the phone is not ready, or does not say its model or chip.
    """
    known = load_profiles()
    phones = _Phones(known)
    phone = attached_phone(serial, serial, phones.phones, known)
    memory = read_output(phones.server, serial, "cat /proc/meminfo", f"device '{serial}'")
    properties = {key: one_line(value, _PROPERTY_CHARACTERS) for key, value in phone.properties.items()}
    return describe_phone(serial, properties, memory, known), phone.profiles_among(known)


def _kind_row(state: str, prefix: str, profile: DeviceProfile, serial: str) -> DeviceRow:
    """Return a DeviceRow with the address `prefix` plus profile name, such as `hub:s25`. `state` is `virtual` or `hosted`."""
    return DeviceRow(
        address=f"{prefix}{profile.name}",
        serial=serial,
        state=state,
        model=profile.title,
        profile=profile.name,
        chip=profile.soc.model,
    )


class _Phones:
    """The phones attached to the user's adb server. Their `getprop` properties are read once for each phone."""

    def __init__(self, profiles: Sequence[DeviceProfile]) -> None:
        self.profiles = profiles
        self.server = user_server()
        listed = self.server.attached()
        if too_long := [attached.serial for attached in listed if len(attached.serial) > _SERIAL_CHARACTERS]:
            text = f"the serial {quote(too_long[0])} has {len(too_long[0])} characters, expected at most {_SERIAL_CHARACTERS}"
            log.warning("%d attached phones are ignored: %s", len(too_long), text)
        right = [attached for attached in listed if len(attached.serial) <= _SERIAL_CHARACTERS]
        if len(right) > MAX_PHONES:
            log.warning("the adb server lists %d phones; only the first %d are used", len(right), MAX_PHONES)
        deadline = time.monotonic() + ASK_TIMEOUT_S

        def asked(attached: AttachedDevice) -> Phone:
            known = _properties(self.server, attached.serial, deadline) if attached.is_ready else {}
            return Phone(attached=attached, properties=known)

        with ThreadPoolExecutor(MAX_PARALLEL_QUERIES) as pool:
            self.phones = list(pool.map(asked, right[:MAX_PHONES]))


def _open(
    address: Address, layout: Layout, profiles: Sequence[DeviceProfile], phones: _Phones | None, opened: Sequence[Device]
) -> contextlib.AbstractContextManager[Device]:
    match address:
        case AttachedAddress():
            assert phones is not None
            return _open_phone(address, layout, phones, opened)
        case VirtualAddress(profile=name, target=target):
            profile = next((profile for profile in profiles if profile.name == name), None) or load_profile(name)
            profile = profile if target is None else profile.with_target(target)
            refuse_twice(address.text, virtual_serial(profile), _serials_in_use(opened))
            return open_virtual(profile, address, layout)
        case HostedAddress():
            raise UserError(f"'{address}' is at Qualcomm AI Hub: files cannot be pushed there", hint="use it with: quadbench run")
        case LocalAddress():
            return open_local(layout)
        case other:
            assert_never(other)


def _open_phone(address: AttachedAddress, layout: Layout, phones: _Phones, opened: Sequence[Device]) -> AdbDevice:
    try:
        phone, profile = choose_phone(address, phones.phones, phones.profiles, variable(SERIAL_VARIABLE))
    except DeviceNotFoundError as error:
        hint = f"{error.hint}; for a phone at another machine's adb server, set ADB_SERVER_SOCKET=tcp:HOST:PORT"
        raise DeviceNotFoundError(f"{error.message}; the adb server is {phones.server.endpoint}", hint=hint) from error
    serial = phone.attached.serial
    refuse_twice(address.text, serial, _serials_in_use(opened))
    virtual, reported = (phone.properties.get(key) for key in (VIRTUAL_PROPERTY, ABI_PROPERTY))
    abi = Abi(virtual) if virtual in set(Abi) else PHONE_ABI  # an attached virtual device reports which programs it runs
    if virtual not in set(Abi) and reported != PHONE_ABI:
        abi_text = one_line(reported or "no ABI", _PROPERTY_CHARACTERS)
        raise DeviceError(
            f"device '{address}' reports {abi_text} as {ABI_PROPERTY}; expected {PHONE_ABI}",
            hint="use a 64-bit Arm phone; programs are built for no other phones",
        )
    resources = contextlib.ExitStack()
    resources.enter_context(device_lock(layout.device(serial), address.text))
    properties = {key: one_line(value, _PROPERTY_CHARACTERS) for key, value in phone.properties.items()}
    chip = " ".join(word for word in (properties.get("ro.soc.manufacturer"), properties.get("ro.soc.model")) if word)
    facts = DeviceFacts(
        address=address.text,
        family="adb",
        serial=serial,
        profile=profile.name,
        title=profile.title,
        soc_model=properties.get("ro.soc.model", profile.soc.model),
        cpu=f"{chip or profile.soc.title}, {properties.get(ABI_PROPERTY, 'unknown ABI')}",
        android_release=properties.get("ro.build.version.release"),
        fingerprint=properties.get("ro.build.fingerprint"),
    )
    return AdbDevice(phones.server, serial, facts=facts, profile=profile, abi=abi, resources=resources)


def _serials_in_use(opened: Sequence[Device]) -> dict[str, str]:
    return {device.serial: device.facts.address for device in opened}


def _properties(server: AdbServer, serial: str, deadline: float) -> dict[str, str]:
    try:
        if (remaining_s := deadline - time.monotonic()) <= 0:
            raise DeviceError(f"device '{serial}' was not asked: the phones before it took {ASK_TIMEOUT_S:g} s", hint="try again")
        return read_properties(server, serial, f"device '{serial}'", remaining_s)
    except DeviceError as error:
        log.warning("%s", error)
        return {}


def _phone_row(phone: Phone, profiles: Sequence[DeviceProfile]) -> DeviceRow:
    attached = phone.attached
    names = phone.profiles_among(profiles)
    properties = {key: one_line(value, _PROPERTY_CHARACTERS) for key, value in phone.properties.items()}
    profile = names[0] if len(names) == 1 else None
    return DeviceRow(
        address=f"{profile}@{attached.serial}" if profile else attached.serial,
        serial=attached.serial,
        state=attached.state,
        model=properties.get("ro.product.model") or one_line(attached.words.get("model", ""), _PROPERTY_CHARACTERS),
        profile=profile,
        chip=properties.get("ro.soc.model"),
        android_release=properties.get("ro.build.version.release"),
        abi=properties.get(ABI_PROPERTY),
    )
