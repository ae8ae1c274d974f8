"""Parse device addresses (the values of --devices), and match them with attached phones. Nothing here connects to a device."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from quadbench.artifacts.safe_text import is_plain
from quadbench.devices.android_reports import AttachedDevice
from quadbench.errors import DeviceError, DeviceNotFoundError, UnknownNameError, UserError, quote
from quadbench.target.abi import PHONE_ABI
from quadbench.target.profile import HOSTED_PREFIX, LOCAL_NAME, VIRTUAL_PREFIX, DeviceProfile, load_profile

_MAX_ADDRESS_LENGTH = 1024  # it may contain a profile's path
_MAX_DATA_MB = 65_536  # limit for a /data in RAM
_ALLOW_HINT = (
    "unlock the phone and allow USB debugging for this machine; if the phone does not ask, revoke all USB debugging"
    " authorisations in its developer options and plug it in again; on a Samsung phone, look at Auto Blocker too"
)
_START_HINT = "boot it into Android with adb reboot, or with its buttons"
_STATE_HINTS = {
    "unauthorized": _ALLOW_HINT,
    "authorizing": _ALLOW_HINT,
    "offline": "plug it in again; if that does not help, turn USB debugging off and on",
    "connecting": "wait a moment, then try again",
    "detached": "another program detached it from adb; run: adb attach",
    "recovery": _START_HINT,
    "rescue": _START_HINT,
    "bootloader": "boot it into Android with fastboot reboot, or with its buttons",
    "sideload": _START_HINT,
    "host": "that is no phone but adb itself; see: adb devices -l",
    "unknown": "plug it in again, or restart the adb server: adb kill-server",
}
_NO_PERMISSIONS_HINT = (
    "add your user to the group plugdev, or install android-sdk-platform-tools-common, to get access to the USB device"
)
_PAIRED_SUFFIX = "._adb-tls-connect._tcp"  # of the adb serials of phones paired for wireless debugging
_HOST_AND_PORT = re.compile(r"\S+:\d{1,5}")
_VIRTUAL_OPTIONS = ("data_mb", "target", "scenario", "abi")
_WRITE_PROFILE_HINT = "write one: quadbench devices describe SERIAL > mine.yaml; read it, and pass it as ./mine.yaml@SERIAL"


@dataclass(frozen=True, kw_only=True)
class _Address:
    """A parsed device address. `text` is the address as the user wrote it. Messages and records name the device by `text`."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class LocalAddress(_Address):
    """The address `local`, which means this machine."""

    text: str = LOCAL_NAME
    profile: str = LOCAL_NAME


@dataclass(frozen=True, kw_only=True)
class VirtualAddress(_Address):
    """An address `virtual:<profile>` of a virtual device, with options such as `?target=qnn` after the profile.

    `data_mb=64` makes /data a RAM disk of that size, empty at each start. `target=qnn` selects one of the profile's targets in
    place of its `virtual_target`. `scenario=hot` plays a scenario, given by name or file. `abi=arm64-v8a` makes the device
    report a phone's ABI and run programs for arm64.
    """

    profile: str
    data_mb: int | None = None
    target: str | None = None
    scenario: str | None = None
    is_arm64: bool = False


@dataclass(frozen=True, kw_only=True)
class HostedAddress(_Address):
    """An address `hub:<profile>` of a phone at Qualcomm AI Hub. The phone runs graphs, but files cannot be pushed to it."""

    profile: str


@dataclass(frozen=True, kw_only=True)
class AttachedAddress(_Address):
    """An address `<profile>`, `<profile>@SERIAL` or `SERIAL` of an attached phone.

    A word without `@` is stored as `profile`; if it is the adb serial of an attached phone, it means that phone. `?target=qnn`
    selects a compile target of the profile in place of its first.
    """

    profile: str
    serial: str | None
    target: str | None = None

    @property
    def without_options(self) -> str:
        """Return the part of the address before the `?`, without its options."""
        return self.text.partition("?")[0]

    def require_plain(self) -> None:
        """Raise UserError if the serial of a device address contains `@`. In the address `s25@A@B`, the serial is `A@B`."""
        if self.serial and "@" in self.serial:
            raise _no_device(self.text)


Address = LocalAddress | VirtualAddress | HostedAddress | AttachedAddress


@dataclass(frozen=True, kw_only=True)
class Phone:
    """An attached phone with its `getprop` properties. The properties are only known if the phone's adb state is `device`."""

    attached: AttachedDevice
    properties: Mapping[str, str]

    def profiles_among(self, profiles: Sequence[DeviceProfile]) -> list[str]:
        """Return the names of the device profiles in `profiles` that match an attached phone by its `getprop` properties."""
        return [profile.name for profile in profiles if profile.matches(self.properties)]


def unique_words(given: Iterable[str]) -> list[str]:
    """Return the given device addresses without surrounding spaces; raise UserError if an address is given twice."""
    words = [word.strip() for word in given]
    for word in words:
        if words.count(word) > 1:
            raise UserError(f"device {quote(word)} was given {words.count(word)} times", hint="give each device once")
    return words


def refuse_twice(address: str, serial: str, taken: Mapping[str, str]) -> None:
    """Raise UserError if `serial` is a key of `taken`, a dict from serial to address of the devices chosen already."""
    if serial in taken:
        raise UserError(f"'{address}' and '{taken[serial]}' are the same device, {serial}", hint="give each device once")


def virtual_serial(profile: DeviceProfile) -> str:
    """Return `virtual-<profile>`, the serial of the one virtual device that a results folder has for a device profile."""
    return f"virtual-{profile.name}"


def parse_addresses(words: Iterable[str]) -> list[Address]:
    """Parse device addresses into a list in the given order. Raise UserError for an invalid or repeated address."""
    return [parse_address(word) for word in unique_words(words)]


def parse_address(text: str) -> Address:
    """Parse a device address, such as `virtual:s25?target=qnn`; raise UserError if the text is not an address."""
    if len(text) > _MAX_ADDRESS_LENGTH:
        raise UserError(
            f"{quote(text)} is not a device address: it has {len(text)} characters, expected at most {_MAX_ADDRESS_LENGTH}",
            hint="see: quadbench devices",
        )
    if not is_plain(text):
        raise UserError(f"{quote(text)} is not a device address: it has unprintable characters", hint="see: quadbench devices")
    if text == LOCAL_NAME:
        return LocalAddress()
    if text.startswith(f"{LOCAL_NAME}?"):
        raise UserError(
            f"'{text}' is not a device address: {LOCAL_NAME} takes no options", hint="for a target, use virtual:s25?target=..."
        )
    if text.startswith(VIRTUAL_PREFIX):
        return _parse_virtual(text)
    if text.startswith(HOSTED_PREFIX):
        return HostedAddress(text=text, profile=text.removeprefix(HOSTED_PREFIX))
    return _parse_attached(text)


def with_target(address: Address, target: str | None) -> Address:
    """Return a copy of a device address with the option `?target=TARGET`. If `target` is None, return the address unchanged.

    Raises:
        UserError: the address is `local`, which takes no options.
    """
    if target is None:
        return address
    name, _, query = address.text.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True)) | {"target": target}
    return parse_address(f"{name}?{urlencode(options, safe='/')}")


def needs_server(text: str) -> bool:
    """Return True if an address means an attached phone. Only attached phones need the user's adb server."""
    return text != LOCAL_NAME and not text.startswith((VIRTUAL_PREFIX, HOSTED_PREFIX))


def choose_phone(
    address: AttachedAddress, phones: Sequence[Phone], profiles: Sequence[DeviceProfile], preferred_serial: str | None
) -> tuple[Phone, DeviceProfile]:
    """Choose the phone that an address means. Return the phone and its device profile, with the target that `?target=` selects.

    A word that equals an attached phone's adb serial means that phone. If several match, `preferred_serial` decides.
    """
    serials, word = [phone.attached.serial for phone in phones], address.without_options
    serial = word if word in serials else address.serial
    if serial not in serials:
        address.require_plain()
    profile = None if word in serials else _profile_of(address, phones, profiles)
    if serial is not None:
        phone = attached_phone(word, serial, phones, profiles)
        profile = _require_match(phone, profile) if profile else _only_profile(phone, profiles)
    else:
        assert profile is not None
        phone = _only_match(word, profile, phones, profiles, preferred_serial)
    return phone, profile.with_target(address.target) if address.target else profile


def describe(phones: Sequence[Phone], profiles: Sequence[DeviceProfile]) -> str:
    """List attached phones as text, such as `R3X (tabs11), emulator-5554 (no profile matches)`, or return `nothing` for none."""
    words = []
    for phone in phones:
        label = ", ".join(phone.profiles_among(profiles)) or "no profile matches"
        words.append(f"{phone.attached.serial} ({label if phone.attached.is_ready else phone.attached.state})")
    return ", ".join(words) or "nothing"


def _parse_attached(text: str) -> AttachedAddress:
    word, mark, query = text.partition("?")
    target = _options(text, query, ("target",)).get("target")
    profile, at, serial = word.partition("@")
    if not profile or (at and not serial) or (mark and not target):
        raise _no_device(text)
    return AttachedAddress(text=text, profile=profile, serial=serial or None, target=target)


def _no_device(text: str) -> UserError:
    return UserError(
        f"'{text}' is not a device address",
        hint="expected local, virtual:<profile>, hub:<profile>, <profile>, <profile>@SERIAL or SERIAL; the last three may"
        " end with ?target=<backend>",
    )


def _options(text: str, query: str, known: Sequence[str]) -> dict[str, str]:
    """Parse the `query` of a device address into a dict from option to value. Raise UserError for unknown or repeated options."""
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if unknown := [name for name in options if name not in known]:
        raise UnknownNameError(f"option of {text.partition('?')[0]}", unknown[0], known)
    if len(options) < len(pairs):
        raise UserError(f"'{text}' gives an option twice", hint="give each option once")
    return options


def _parse_virtual(text: str) -> VirtualAddress:
    profile, _, query = text.removeprefix(VIRTUAL_PREFIX).partition("?")
    options = _options(text, query, _VIRTUAL_OPTIONS)
    size, target, scenario, abi = map(options.get, _VIRTUAL_OPTIONS)
    is_number = size is not None and size.isascii() and size.isdecimal() and len(size) <= len(str(_MAX_DATA_MB))
    data_mb = int(size) if size and is_number else None
    is_size = size is None or (data_mb is not None and 1 <= data_mb <= _MAX_DATA_MB)
    if not profile or "" in (target, scenario) or abi not in (None, PHONE_ABI) or not is_size:
        raise UserError(
            f"'{text}' is not the address of a virtual device",
            hint=f"expected virtual:<profile>, with ?data_mb=<1 to {_MAX_DATA_MB}>, ?target=<backend>, ?abi={PHONE_ABI}, "
            "?scenario=<name or file>, or several of them joined by &",
        )
    return VirtualAddress(text=text, profile=profile, data_mb=data_mb, target=target, scenario=scenario, is_arm64=abi is not None)


def _profile_of(address: AttachedAddress, phones: Sequence[Phone], profiles: Sequence[DeviceProfile]) -> DeviceProfile:
    for profile in profiles:
        if profile.name == address.profile:
            return profile
    try:
        return load_profile(address.profile)
    except UnknownNameError as error:
        names = ", ".join(sorted(profile.name for profile in profiles))
        known = f"profiles: {names}; attached: {describe(phones, profiles)}"
        message = f"'{address.without_options}' is neither a device profile nor an attached device; {known}"
        raise DeviceNotFoundError(message, hint=error.hint or "see: quadbench devices") from error


def attached_phone(text: str, serial: str, phones: Sequence[Phone], profiles: Sequence[DeviceProfile]) -> Phone:
    """Return the phone with an adb serial, ready to use. `text` is the user's word for it in the error if it is not attached."""
    for phone in phones:
        if phone.attached.serial == serial:
            attached = phone.attached
            if attached.is_ready:
                return phone
            message = f"device '{serial}' is attached but its state is '{attached.state}', expected 'device'"
            raise DeviceError(message, hint=_state_hint(attached))
    hint = "plug it in and allow USB debugging"
    if _HOST_AND_PORT.fullmatch(serial):
        hint = f"adb connect {serial}; if the phone was never paired with this machine, run adb pair first"
    raise _not_attached(text, phones, profiles, hint=hint)


def _only_match(
    text: str, profile: DeviceProfile, phones: Sequence[Phone], profiles: Sequence[DeviceProfile], preferred_serial: str | None
) -> Phone:
    matching = [phone for phone in phones if profile.matches(phone.properties)]
    preferred = [phone for phone in matching if phone.attached.serial == preferred_serial]
    if len(matching) > 1 and not preferred:
        serials = ", ".join(phone.attached.serial for phone in matching)
        raise UserError(
            f"several attached devices match '{text}': {serials}",
            hint=f"name one: {text}@{matching[0].attached.serial}, or set ANDROID_SERIAL",
        )
    if not matching:
        unready = [
            f"if it is {phone.attached.serial}, {_state_hint(phone.attached)}" for phone in phones if not phone.attached.is_ready
        ]
        hint = "; ".join(unready) or "plug it in and allow USB debugging"
        raise _not_attached(text, phones, profiles, hint=f"{hint}, or use {VIRTUAL_PREFIX}{text}")
    return (preferred or matching)[0]


def _not_attached(text: str, phones: Sequence[Phone], profiles: Sequence[DeviceProfile], *, hint: str) -> DeviceNotFoundError:
    return DeviceNotFoundError(f"device '{text}' is not attached; attached: {describe(phones, profiles)}", hint=hint)


def _state_hint(attached: AttachedDevice) -> str:
    """Return a hint on how to bring a phone from its current adb state, such as `offline`, to the state `device`."""
    serial, state = attached.serial, attached.state
    if state == "offline" and _HOST_AND_PORT.fullmatch(serial):
        return f"the phone is on a network: run adb disconnect {serial}, then adb connect {serial}"
    if state == "offline" and serial.endswith(_PAIRED_SUFFIX):
        return "the phone is on a network: turn its wireless debugging off and on"
    return _NO_PERMISSIONS_HINT if state.startswith("no permissions") else _STATE_HINTS.get(state, "see: adb devices -l")


def _require_match(phone: Phone, profile: DeviceProfile) -> DeviceProfile:
    if profile.matches(phone.properties):
        return profile
    if not phone.properties:
        raise DeviceError(f"device '{phone.attached.serial}' has unknown properties: getprop failed on it", hint="reconnect it")
    wrong = [
        f"{key} is '{phone.properties.get(key, '')}', expected '{pattern}'"
        for key, pattern in profile.mismatches(phone.properties).items()
    ]
    raise DeviceError(
        f"device '{phone.attached.serial}' does not match the profile '{profile.name}': {'; '.join(wrong)}",
        hint=f"name the profile of this phone, or {_WRITE_PROFILE_HINT}",
    )


def _only_profile(phone: Phone, profiles: Sequence[DeviceProfile]) -> DeviceProfile:
    names = phone.profiles_among(profiles)
    if len(names) == 1:
        return next(profile for profile in profiles if profile.name == names[0])
    serial = phone.attached.serial
    if names:
        raise UserError(f"device '{serial}' matches several profiles: {', '.join(names)}", hint=f"name one: {names[0]}@{serial}")
    model, chip = (phone.properties.get(key, "unknown") for key in ("ro.product.model", "ro.soc.model"))
    raise DeviceError(f"no device profile matches '{serial}' (model {model}, chip {chip})", hint=_WRITE_PROFILE_HINT)
