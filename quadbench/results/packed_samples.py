"""A launch's samples as one database row, made when the launch is stored, so that a report reads 100,000 launches in seconds."""

import json
import sys
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from quadbench.artifacts import launch_values
from quadbench.artifacts.launch_values import MemoryReadings, SampleKind, SampleKinds, Samples

_DEFAULTS = {name: getattr(SampleKind(metric=""), name) for name in launch_values.KIND_FIELDS}


@dataclass(frozen=True, kw_only=True)
class PackedSamples:
    """The samples of a launch in compact form. `kinds` is JSON that describes the values; launches of equal plans share it.
    `numbers` are the values in that order, each a little-endian double. `readings` is JSON of the memory readings and of their
    places among the values, as these differ from launch to launch.
    """

    kinds: str
    numbers: bytes
    readings: str

    @property
    def digest(self) -> str:
        """Return the SHA-256 of `kinds`, in hexadecimal digits."""
        return sha256(self.kinds.encode()).hexdigest()


def pack(samples: Samples) -> PackedSamples:
    """Return the compact form of a launch's samples."""
    memory = samples.memory
    table = {_text(kind): kind for kind in memory.kinds.each}
    numbers = {text: number for number, text in enumerate(table)}
    readings = {
        "kinds": [_fields(kind) for kind in table.values()],
        "of": [numbers[_text(kind)] for kind in memory.kinds.each],
        "places": [place for place, is_reading in enumerate(memory.is_reading) if is_reading],
        "values": list(memory.values),
    }
    return PackedSamples(
        kinds=_json([_fields(kind) for kind in samples.kinds.each]),
        numbers=_little_endian(samples.values).tobytes(),
        readings=_json(readings) if memory.values else "",
    )


def read_kinds(text: str) -> SampleKinds:
    """Return sample kinds from their JSON."""
    return SampleKinds(tuple(SampleKind(**fields) for fields in json.loads(text)))


def unpack(kinds: SampleKinds, numbers: bytes, readings: str, damage: Callable[[Exception], Exception]) -> Samples:
    """Return a launch's samples from their compact form. Memory readings are taken apart when they are first needed.

    If they are damaged, the samples then raise the error that `damage` makes of the reason.

    Raises:
        ValueError: the number of values is not that of the kinds.
    """
    values = array("d")
    values.frombytes(numbers)
    values = _little_endian(values)
    if len(values) != len(kinds.each):
        raise ValueError(f"a launch has {len(values)} values; expected {len(kinds.each)}")
    return Samples.restored(kinds, values, partial(_memory, readings, len(values), damage))


def _memory(text: str, planned: int, damage: Callable[[Exception], Exception]) -> MemoryReadings:
    """Return the memory readings of a launch with so many other values."""
    if not text:
        return MemoryReadings(is_reading=bytes(planned), kinds=SampleKinds(()), values=())
    try:
        return _read_memory(json.loads(text), planned)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise damage(ValueError(f"memory readings of a launch: {error}")) from error


def _read_memory(readings: dict[str, Any], planned: int) -> MemoryReadings:
    """Return memory readings from their JSON. Raise a built-in error of some kind if it is not what `pack` made."""
    table = [SampleKind(**fields) for fields in readings["kinds"]]
    kinds = tuple(table[number] for number in readings["of"])
    values, is_reading = tuple(map(float, readings["values"])), bytearray(planned + len(readings["values"]))
    for place in readings["places"]:
        is_reading[place] = 1
    return MemoryReadings(is_reading=bytes(is_reading), kinds=SampleKinds(kinds), values=values)


def _fields(kind: SampleKind) -> dict[str, Any]:
    """Return what distinguishes a kind. Labels are sorted, so that equal kinds give equal text."""
    fields = {name: value for name in launch_values.KIND_FIELDS if (value := getattr(kind, name)) != _DEFAULTS[name]}
    return fields | ({"labels": dict(sorted(kind.labels.items()))} if kind.labels else {})


def _text(kind: SampleKind) -> str:
    return _json(_fields(kind))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _little_endian(values: Iterable[float]) -> "array[float]":
    """Return a copy of an array in which each double is little-endian; the same function takes it back."""
    copy = array("d", values)
    if sys.byteorder == "big":
        copy.byteswap()
    return copy
