"""Properties: the text of `getprop` and of `adb devices -l` -> properties and attached devices. Pure."""

import re
from dataclasses import dataclass, field

ABI_PROPERTY = "ro.product.cpu.abi"
BOOTED_PROPERTY = "sys.boot_completed"
_ENTRY = re.compile(r"\[(?P<key>[^\]]+)\]: \[(?P<value>.*)")
_STATES = (
    "device|offline|unauthorized|authorizing|connecting|bootloader|recovery|rescue|sideload|host|detached|unknown"
    r"|no permissions(?: .*?)?"
)
_ATTACHED = re.compile(rf"(?P<serial>\S.*?)\s+(?P<state>{_STATES})(?P<words>(?:\s+[\w-]+:\S+)*)\s*")


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A line of `adb devices -l`. `words` are its pairs, as model, product and usb."""

    serial: str
    state: str  # `device` is the one that works
    words: dict[str, str] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        return self.state == "device"


def parse_getprop(text: str) -> dict[str, str]:
    """Return the properties by key. A value may span lines; a line that belongs to no property is passed over."""
    properties: dict[str, str] = {}
    open_key: str | None = None
    for line in text.split("\n"):
        if entry := _ENTRY.match(line):
            open_key, rest = entry["key"], entry["value"]
            properties[open_key] = rest
        elif open_key is not None:
            rest = line
            properties[open_key] += f"\n{line}"
        else:
            continue
        if rest.endswith("]"):
            properties[open_key] = properties[open_key][:-1].rstrip("\r\n")
            open_key = None
    return properties


def format_getprop(properties: dict[str, str]) -> str:
    """Return the text that `parse_getprop` reads, sorted as Android does."""
    return "".join(f"[{key}]: [{value}]\n" for key, value in sorted(properties.items()))


def parse_attached(text: str) -> list[Attached]:
    """Return the devices of `adb devices -l`, whose heading is left out. A serial may contain spaces, and so may a state."""
    return [_attached(match) for line in text.splitlines() if (match := _ATTACHED.fullmatch(line))]


def _attached(match: re.Match[str]) -> Attached:
    words = dict(word.split(":", 1) for word in match["words"].split())
    return Attached(serial=match["serial"], state=match["state"], words=words)
