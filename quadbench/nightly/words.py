"""Words: what a night's file calls its devices -> the devices as they are leased, and the words that mean none, or one twice."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from quadbench.artifacts.night import Measurement
from quadbench.errors import QuadbenchError, UserError
from quadbench.farm.farm_file import ExpectedPhone
from quadbench.farm.leases import leased_name
from quadbench.farm.selection import parse_wish
from quadbench.nightly.night_file import NightFile
from quadbench.rollout.forecast import kind_at
from quadbench.spec import Location, Problem
from quadbench.target.known import HOSTED_PREFIX, VIRTUAL_PREFIX
from quadbench.target.profile import LOCAL_NAME


def device_of(word: str, series: Sequence[Measurement], serials: Mapping[str, str]) -> str:
    """Return the name under which the device of a word is leased, as far as the word or earlier nights tell; else the word.

    `serials` has those of farm.yaml's phones by their names.
    """
    for one in reversed(series):
        if one.address == word:
            return one.device
    address = serials.get(word, word)
    try:
        return leased_name(address) or address.partition("?")[0].rpartition("@")[2]
    except QuadbenchError:
        return address


def word_mistakes(file: NightFile, expected: Sequence[ExpectedPhone], *, on_farm: bool) -> Iterator[Problem]:
    """Yield the words that can mean no device, any of several, or one that was named before.

    `expected` are the phones of farm.yaml. Whether a phone is there, or a farm has such a device, only the night can tell.
    """
    lists: list[tuple[Location, Sequence[str]]] = [(("devices",), file.devices)]
    lists += [(("cases", number, "devices"), case.devices) for number, case in enumerate(file.cases) if case.devices]
    label_keys = tuple({key for phone in expected for key in phone.labels})
    serials = {phone.name: phone.serial for phone in expected}
    kind_fault = cache(_kind_fault)  # a file may name a thousand phones of a kind, whose profile takes a while to read
    for where, words in lists:
        named: dict[str, str] = {}
        for number, word in enumerate(words):
            device = word.partition("?")[0] if on_farm else device_of(word, (), serials)
            reason = _wish_fault(word, label_keys)
            if reason is None and not on_farm and word not in serials:
                reason = kind_fault(_without_serial(word))
            if reason is None and device in named:
                reason = f"'{word}' is the device of '{named[device]}'; name it once"
            if reason:
                yield Problem(location=(*where, number), reason=reason)
            named.setdefault(device, word)


def _wish_fault(word: str, label_keys: Sequence[str]) -> str | None:
    if parse_wish(word, label_keys):
        return f"'{word}' fits any of several devices, and a history is that of one; name each, as s25@SERIAL"
    return None


def _without_serial(word: str) -> str:
    """Return what a word says of the device's kind; nothing where it may be a serial alone, which looks like a profile."""
    if word == LOCAL_NAME or word.startswith((f"{LOCAL_NAME}?", VIRTUAL_PREFIX, HOSTED_PREFIX)):
        return word
    profile, at, serial = word.partition("@")
    if not at:
        return ""
    return f"{profile}@SERIAL" if profile and serial and "?" not in word else word


def _kind_fault(word: str) -> str | None:
    """Say why a word means no device of any kind; None where it may mean one, which need not be there."""
    if word.startswith(HOSTED_PREFIX):
        return f"'{word}' is at Qualcomm AI Hub, which runs single graphs and no nights; name a phone"
    try:
        if word:
            kind_at(word)
    except UserError as error:
        return "; ".join(str(error).splitlines())
    return None
