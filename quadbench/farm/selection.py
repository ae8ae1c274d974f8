"""Parse requests for devices (wishes), such as `s25*2` and `chip=SM8750`, and match them with devices, without connecting.

If devices fit several wishes, a bipartite matching serves all wishes whenever that is possible.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quadbench.errors import DeviceNotFoundError

NAME_KEYS = ("name", "profile")  # labels that a wish without key is matched with
KEYS = ("name", "serial", "profile", "model", "chip", "android", "abi", "host")
_COUNTED = re.compile(r"(?P<what>[^*]+)\*(?P<count>[1-9]\d{0,3})")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request for `count` devices whose label `key` is `value`. If `key` is None, device name or profile must be `value`."""

    word: str
    key: str | None
    value: str
    count: int

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Return True if a device with these labels satisfies the request."""
        keys = NAME_KEYS if self.key is None else (self.key,)
        return any(labels.get(key, "").casefold() == self.value.casefold() for key in keys)


def parse_wish(word: str, label_keys: Sequence[str]) -> Wish | None:
    """Return the request in a --devices value such as `s25*2`, None for an address. `label_keys` are farm.yaml's label names."""
    counted = _COUNTED.fullmatch(word)
    what, count = (counted["what"], int(counted["count"])) if counted else (word, 1)
    key, equals, value = what.partition("=")
    if equals and key in (*KEYS, *label_keys) and value:
        return Wish(word=word, key=key, value=value, count=count)
    if counted and re.fullmatch(r"[\w.-]+", what):
        return Wish(word=word, key=None, value=what, count=count)
    return None


def chosen(wishes: Sequence[Wish], devices: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Choose free devices for each request and return their names. `devices` maps the name of each free device to its labels.

    Raises:
        DeviceNotFoundError: there are too few; the message names the first unsatisfied wish.
    """
    places = [wish for wish in wishes for _ in range(wish.count)]
    fitting = [[device for device, labels in devices.items() if wish.fits(labels)] for wish in places]
    given: dict[str, int] = {}  # device to place
    for place, wish in enumerate(places):
        if not _serve(place, fitting, given, set()):
            fit = ", ".join(fitting[place]) or "none"
            raise DeviceNotFoundError(
                f"too few devices are free for '{wish.word}': {len(fitting[place])} fit ({fit}), some may serve other wishes",
                hint="see: quadbench devices",
            )
    by_place = {place: device for device, place in given.items()}
    numbers = iter(range(len(places)))
    return [[by_place[next(numbers)] for _ in range(wish.count)] for wish in wishes]


def _serve(place: int, fitting: Sequence[Sequence[str]], given: dict[str, int], asked: set[str]) -> bool:
    """Assign a device to one unit of a request (`s25*2` has two), reassigning others if needed. Return whether it succeeded."""
    for device in fitting[place]:
        if device not in asked:
            asked.add(device)
            if device not in given or _serve(given[device], fitting, given, asked):
                given[device] = place
                return True
    return False
