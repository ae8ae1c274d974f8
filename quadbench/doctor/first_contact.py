"""Switches on phones that keep adb from seeing them, by vendor, from public pages. This machine can read none of them."""

from collections.abc import Iterator
from dataclasses import dataclass

PAGE = "docs/phones.md#what-hides-a-phone"


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A setting of a phone, where it is, and what it has to be for adb. The words are those of the phone in English."""

    name: str
    place: str
    wanted: str


EVERY_PHONE = (
    Switch(name="Developer options", place="tap the build number seven times", wanted="on"),
    Switch(name="USB debugging", place="Developer options", wanted="on"),
    Switch(name="Allow USB debugging?", place="a question on the unlocked screen", wanted="answered with Allow"),
    Switch(name="Use USB for", place="the notification of the cable", wanted="File transfer; a cable may be for charging only"),
    Switch(name="Advanced Protection", place="Security & privacy, Android 16 or newer", wanted="off, or the phone unlocked"),
    Switch(name="a work profile's rules", place="set by the employer", wanted="such that debugging is not forbidden"),
)
"""Switches that phones of all vendors have."""

BY_VENDOR = {
    "samsung": (
        Switch(name="Build number", place="Settings > About phone > Software information", wanted="tapped seven times"),
        Switch(
            name="Auto Blocker",
            place="Settings > Security and privacy > Auto Blocker",
            wanted="off; it is on by default, blocks commands by USB, and from One UI 8.5 on can turn itself on after 30 minutes",
        ),
        Switch(
            name="Maximum restrictions",
            place="Settings > Security and privacy > Auto Blocker",
            wanted="off; from One UI 9 on they block USB connections",
        ),
    ),
    "google": (Switch(name="Build number", place="Settings > About phone", wanted="tapped seven times"),),
    "xiaomi": (
        Switch(name="OS version", place="Settings > About phone", wanted="tapped seven times, as there is no build number"),
        Switch(name="Developer options", place="Settings > Additional settings", wanted="open for USB debugging"),
        Switch(
            name="Install via USB, USB debugging (Security settings)",
            place="Developer options",
            wanted="of no importance: quadbench installs no app and touches no screen",
        ),
    ),
    "oneplus": (
        Switch(name="Build number", place="Settings > About device > Version", wanted="tapped seven times"),
        Switch(name="Developer options", place="Settings > System & updates, or Additional settings", wanted="open"),
    ),
}
"""Switches of a vendor's phones, by the property ro.product.manufacturer in lower case."""
_SPELLINGS = {"oneplus": "OnePlus"}


def switches(manufacturer: str | None) -> Iterator[Switch]:
    """Yield the switches that can hide a phone of this manufacturer, its own first. Without one, yield those of all vendors."""
    own = BY_VENDOR if manufacturer is None else {manufacturer.lower(): BY_VENDOR.get(manufacturer.lower(), ())}
    for vendor_switches in own.values():
        yield from vendor_switches
    yield from EVERY_PHONE


def advice(manufacturer: str | None) -> str:
    """Return a hint for a machine on which adb lists no phone at all. It says what to look at, and claims no cause.

    It is short enough for one message: the page has what each switch does, and where the common ones are.
    """
    known = (manufacturer or "").lower()
    if known in BY_VENDOR:
        own = [f"{switch.name} ({switch.place}): {switch.wanted.partition(';')[0]}" for switch in BY_VENDOR[known]]
    else:
        own = [
            f"on {_SPELLINGS.get(vendor, vendor.capitalize())}: {', '.join(one.name for one in named)}"
            for vendor, named in BY_VENDOR.items()
        ]
    every = [f"{switch.name}: {switch.wanted.partition(';')[0]}" for switch in EVERY_PHONE]
    return (
        "adb lists no phone, and nothing here says why. Look at the cable, and on the phone at these switches:"
        f" {'; '.join((*own, *every))}. {PAGE} shows where they are"
    )
