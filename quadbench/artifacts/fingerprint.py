"""Fingerprint: a record -> everything around the graphs that may make its figures differ from another's; pure."""

import re
from collections.abc import Mapping, Sequence

from quadbench.artifacts.run import LIBRARY_PREFIX, RunRecord

_VERSIONS = ("quadbench", "runtime", "harness", "harness.commit", "harness.build_type", "kit")
_CAP = re.compile(r"(\S+) [^/\s]+/(\S+) kHz")  # of a clock's text: `policy0 1000/2000/3000 kHz`
_NONE = "none"


def fingerprint(record: RunRecord) -> dict[str, str]:
    """Return the environment of a launch: the device's build, the programs and libraries, settings, and caps of the clocks."""
    versions = {name: text for name, text in record.versions.items() if name in _VERSIONS or name.startswith(LIBRARY_PREFIX)}
    caps = ", ".join(" ".join(pair) for pair in _CAP.findall(record.state.get("before.clocks", "")))
    around = {
        "device build": record.device.fingerprint,
        "Android": record.device.android_release,
        "CPU": record.device.cpu,
        "target": record.target,
        "clocks up to, kHz": caps,
    }
    return {**{name: text for name, text in around.items() if text}, **versions, **record.settings}


def differences(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> dict[str, tuple[str, str]]:
    """Return by name what is not the same on two sides, each with every value that it had there."""
    sides = [[fingerprint(record) for record in side] for side in (a, b)]
    names = dict.fromkeys(name for side in sides for one in side for name in one)
    values = {name: (_values(sides[0], name), _values(sides[1], name)) for name in names}
    return {name: (", ".join(first), ", ".join(second)) for name, (first, second) in values.items() if first != second}


def _values(side: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return sorted({one.get(name, _NONE) for one in side})
