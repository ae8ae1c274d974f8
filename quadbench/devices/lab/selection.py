"""Parse device requests (wishes), such as `s25*2`, and match them with devices by label. No connection to a device is made.

If devices fit several wishes, a bipartite matching serves all wishes whenever that is possible.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quadbench.errors import DeviceNotFoundError, UserError, quote

NAME_KEYS = ("name", "profile")  # labels that a wish without key is matched with
KEYS = ("name", "serial", "profile", "model", "chip", "android", "abi", "host")
_COUNTED = re.compile(r"(?P<what>[^*]+)\*(?P<count>[0-9]+)")
_MOST_COUNT = 9999


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request for `count` devices whose label `key` equals `value`. If `key` is None, a device's name or profile must match."""

    word: str
    key: str | None
    value: str
    count: int

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Return True if a device with these labels satisfies the request."""
        keys = NAME_KEYS if self.key is None else (self.key,)
        return any(labels.get(key, "").casefold() == self.value.casefold() for key in keys)


def parse_wish(word: str, label_keys: Sequence[str]) -> Wish | None:
    """Parse a --devices value such as `s25*2` or `chip=sm8750` into a Wish. Return None if the value has neither form.
    `label_keys` lists keys that may stand before `=` besides the built-in keys, such as `chip`.

    Raises:
        UserError: the number after `*` is 0 or above 9999.
    """
    counted = _COUNTED.fullmatch(word)
    what, number = (counted["what"], counted["count"]) if counted else (word, "1")
    key, equals, value = what.partition("=")
    is_keyed = equals and key in (*KEYS, *label_keys) and value
    if not is_keyed and not (counted and re.fullmatch(r"[\w.-]+", what)):
        return None
    if len(number) > len(str(_MOST_COUNT)) or not int(number):
        raise UserError(f"{quote(word)} asks for {quote(number)} devices; expected 1 to {_MOST_COUNT}")
    return Wish(word=word, key=key if is_keyed else None, value=value if is_keyed else what, count=int(number))


def chosen(wishes: Sequence[Wish], devices: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Choose free devices for requests and return one list of device names per request. `devices` maps each free device to its
    labels. Raise DeviceNotFoundError if too few devices fit; the message names the first request that is not met.
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
    """Assign a device to a slot (`s25*2` requests two); reassign other slots if needed. Return True, or False if impossible."""
    for device in fitting[place]:
        if device not in asked:
            asked.add(device)
            if device not in given or _serve(given[device], fitting, given, asked):
                given[device] = place
                return True
    return False
