"""Removal of what names a phone, its owner or a network from texts that are handed on. It counts the removals by kind.

Two rules hold together. Of the properties, only those of known groups are kept. From every text that is kept, known values and
everything that looks like one of the kinds below are removed.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from quadbench.artifacts.safe_text import printable

REMOVED = "REMOVED"
_MAX_VALUE = 1000  # characters of a property; a build fingerprint takes 80
_LEAST_ANYWHERE = 8  # characters of a known value that is also removed within a word
_LEAST_SECRET = 6  # characters of a removed property's value that is looked for in other texts; shorter ones are common words

_NAME_LENGTH = 200
_KEPT = re.compile(
    r"ro\.(product|soc|build|board|hardware|system|system_ext|vendor|odm|bootimage|config|dalvik|opengles|sf|mediatek|quadbench)"
    r"(\.[\w.:@-]+)?|ro\.(arch|zygote|debuggable|secure|treble\.enabled|bootloader)"
    r"|ro\.(boot|kernel)\.(qemu|hardware(\.[\w.:@-]+)?|verifiedbootstate)|sys\.boot_completed",
    re.ASCII,
)
_IDENTIFYING = re.compile(
    r"serial|imei|meid|iccid|imsi|msisdn|mac(_?addr)?$|\bdid$|uuid|guid|unique|device_?id|android_?id|chip_?id|cpu_?id",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    rf"{_IDENTIFYING.pattern}|addr|hostname|ssid|wifi|wlan|account|e_?mail|owner|user_?name|phone_?number|nickname|device_?name$",
    re.IGNORECASE,
)
_VALUE = r"""["']?\s*[:=]\s*(?:"[^"\n]*"|'[^'\n]*'|[^\s,;})\]]+)"""
_PATTERNS = {  # kind -> what it looks like; the group `kept` stays
    "Wi-Fi name": re.compile(rf"(?P<kept>\b(?:B?SSID|wifi[_ ]?name|network[_ ]name)){_VALUE}", re.IGNORECASE),
    "account name": re.compile(
        rf"(?P<kept>\bAccount ?\{{ ?name)=[^,}}\n]*|(?P<kept2>\b(?:account|user)[_ ]?name){_VALUE}", re.IGNORECASE
    ),
    "serial number": re.compile(rf"(?P<kept>\bserial(?:[_ ]?(?:no|number))?){_VALUE}", re.IGNORECASE),
    "IMEI or similar": re.compile(
        rf"(?P<kept>\b(?:IMEI|MEID|ICCID|IMSI|MSISDN)){_VALUE}|(?<![\w.])\d{{15,20}}(?![\w.])", re.IGNORECASE
    ),
    "e-mail address": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"),
    "hardware address": re.compile(r"(?<![\w:-])[0-9a-f]{2}(?:([:-]))[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}(?![\w:-])", re.IGNORECASE),
    "network address": re.compile(
        r"(?<![\w.])(?:192\.168|10\.\d{1,3}|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?![\w.])"
        r"|(?<![\w:])f[cde][0-9a-f]{2}:(?::?[0-9a-f]{1,4}){1,7}(?![\w:])",
        re.IGNORECASE,
    ),
    "UUID": re.compile(r"(?<![\w-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\w-])", re.IGNORECASE),
}
KINDS = ("property", "known value", *_PATTERNS)
"""The kinds of personal data that are removed."""


class PersonalData:
    """Removes personal data from texts. `secrets` are known values, such as the phone's serial number and folder names."""

    def __init__(self, secrets: Iterable[str], properties: Mapping[str, str]) -> None:
        values = {value.strip() for key, value in properties.items() if _IDENTIFYING.search(key)}
        long = {value for value in values if len(value) >= _LEAST_SECRET and re.search(r"\d", value)}
        known = sorted({*filter(None, secrets), *long}, key=lambda value: (-len(value), value))
        self._known = re.compile("|".join(map(_known_pattern, known)), re.IGNORECASE) if known else None
        self.removed: Counter[str] = Counter()

    def clean(self, text: str) -> str:
        """Return a text with everything personal replaced by REMOVED. Control characters are escaped; lines stay lines."""
        text = printable(text)
        if self._known:
            text, count = self._known.subn(REMOVED, text)
            self._count("known value", count)
        for kind, pattern in _PATTERNS.items():
            text, count = pattern.subn(_replacement, text)
            self._count(kind, count)
        return text

    def clean_json_lines(self, text: str) -> str:
        """Return lines of JSON with everything personal removed from their strings. A line that is no JSON is cleaned as text."""
        return "\n".join(map(self._clean_json_line, text.split("\n")))

    def kept_properties(self, properties: Mapping[str, str]) -> dict[str, str]:
        """Return the properties that tell a phone's model, chip and software, cleaned, and none that may name one phone."""
        kept = {}
        for key, value in sorted(properties.items()):
            if len(key) <= _NAME_LENGTH and _KEPT.fullmatch(key) and not _PERSONAL.search(key):
                kept[key] = re.sub(r"[\n\t]", " ", self.clean(value))[:_MAX_VALUE]
            else:
                self._count("property", 1)
        return kept

    def _clean_json_line(self, line: str) -> str:
        try:
            value = json.loads(line)
            cleaned = self._cleaned(value)
        except (ValueError, RecursionError):
            return self.clean(line)
        return line if cleaned == value and line.isprintable() else json.dumps(cleaned)

    def _cleaned(self, value: Any, key: str = "") -> Any:
        """Return a JSON value with its strings cleaned. A string below a key that names something personal is removed whole."""
        match value:
            case str() if value and _PERSONAL.search(key):
                self._count("known value", 1)
                return REMOVED
            case str():
                return self.clean(value)
            case list():
                return [self._cleaned(one, key) for one in value]
            case dict():
                return {self.clean(name): self._cleaned(one, name) for name, one in value.items()}
            case _:
                return value

    def _count(self, kind: str, count: int) -> None:
        if count:
            self.removed[kind] += count


def _known_pattern(value: str) -> str:
    """Return a pattern for a known value: a long one anywhere, a short one only as a word of its own."""
    pattern = re.escape(value)
    return pattern if len(value) >= _LEAST_ANYWHERE else rf"(?<![\w.-]){pattern}(?![\w-])"


def _replacement(match: re.Match[str]) -> str:
    """Return the text for a match: its key, if it has one, and REMOVED. A value in quotes stays in quotes, so that JSON holds."""
    groups = match.groupdict()
    kept = groups.get("kept") or groups.get("kept2")
    if kept is None:
        return REMOVED
    rest = re.match(r"""(["']?\s*[:=]\s*)(["']?)""", match[0][len(kept) :])
    between, quote = rest.groups() if rest else ("=", "")
    return f"{kept}{between}{quote}{REMOVED}{quote}"
