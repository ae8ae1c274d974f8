"""Symbols that libraries of a runtime kit take from each other: which names each takes and gives, and names that nobody gives.

Linkers for Android and Linux write a version beside each name of libc and its like. A name without a version therefore comes from
another library of the kit, or from a system library whose names have no versions.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.elf import dynamic, elffile, hash

from quadbench.errors import QuadbenchError
from quadbench.kits.elf import NoElfError, reading

MAX_SYMBOLS = 2**20
_MAX_NAMES_BYTES = 64 * 2**20
_PART_BYTES = 2**16
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_VERSION_NEED, _VERSION_AUX = struct.Struct("<HHIII"), struct.Struct("<IHHII")
_GLOBAL, _UNDEFINED = 1, 0
_VERSION_MASK, _FIRST_NEEDED_VERSION = 0x7FFF, 2  # 0 is local, 1 has no version
# System libraries of Android and of Linux that give all their names a version.
VERSIONED = frozenset({
    "libc.so", "libm.so", "libdl.so", "libatomic.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1",
    "libgcc_s.so.1", "libstdc++.so.6", "ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2",
})  # fmt: skip
_LOG = ("liblog.so", ("__android_log", "android_log"))  # names without a version; every library for Android may need it


@dataclass(frozen=True, kw_only=True)
class Symbols:
    """The dynamic symbols of a library: `given` names, and `taken` names with the library that has to give each, or None.

    Weak names are left out of `taken`, because a library runs without them.
    """

    given: frozenset[str]
    taken: Mapping[str, str | None]


def read_symbols(path: Path, *, name: str, fault: type[QuadbenchError]) -> Symbols:
    """Read the dynamic symbols of a library with 64 bits. `name` is the library's name in error messages, `fault` their class."""
    with reading(path, f"the symbols of '{name}' cannot be read", fault) as (elf, parts):
        linking = next((part for part in parts if isinstance(part, dynamic.DynamicSegment)), None)
        if linking is None or elf.elfclass != 64:
            return Symbols(given=frozenset(), taken={})
        table = _Tables(elf, linking)
        versions = dict(table.needed_versions())
        given, taken = set[str](), dict[str, str | None]()
        for number, (symbol, version) in enumerate(table.symbols()):
            at, info, _, section, _, _ = symbol
            if number == 0 or info >> 4 == 0:  # no symbol, or a local one
                continue
            if section != _UNDEFINED:
                given.add(table.text(at))
            elif info >> 4 == _GLOBAL:
                taken[table.text(at)] = versions.get(version & _VERSION_MASK)
        return Symbols(given=frozenset(given), taken=taken)


def missing_names(libraries: Mapping[str, Symbols], needed: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return for each library the names that it takes and that no library gives which it needs, in `needed`, or these need.

    Names are only missed where it is certain: if their version names a library of the kit, or if all libraries that the kit does
    not have give their names a version.
    """
    missed: dict[str, tuple[str, ...]] = {}
    for name, symbols in libraries.items():
        reached = _reached(name, needed)
        there = frozenset[str]().union(*(libraries[one].given for one in reached if one in libraries))
        may_be_elsewhere = bool(reached - libraries.keys() - VERSIONED - {_LOG[0]})
        logs = _LOG[1] if _LOG[0] in reached else ()
        absent = sorted(
            taken
            for taken, owner in symbols.taken.items()
            if taken not in there
            and not taken.startswith(logs)
            and (owner in libraries or (owner is None and not may_be_elsewhere))
        )
        if absent:
            missed[name] = tuple(absent)
    return missed


def _reached(name: str, needed: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return the names of a library and of all that it needs, directly or indirectly."""
    reached, waiting = set[str](), [name]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += needed.get(one, ())
    return reached


class _Tables:
    """The tables of a library's dynamic segment, read in few large reads."""

    def __init__(self, elf: elffile.ELFFile, linking: dynamic.DynamicSegment) -> None:
        self._elf, self._linking = elf, linking
        self._count = self._symbol_count()
        sizes = [tag["d_val"] for tag in linking.iter_tags("DT_STRSZ")]
        size = sizes[0] if sizes else 0
        if self._count > MAX_SYMBOLS or size > _MAX_NAMES_BYTES:
            raise NoElfError(f"it has {self._count} symbols with {size} bytes of names; expected at most {MAX_SYMBOLS}")
        self._names = self._read("DT_STRTAB", size)

    def symbols(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield each symbol's fields and the number of its version."""
        content = self._read("DT_SYMTAB", self._count * _SYMBOL.size)
        raw = self._read("DT_VERSYM", 2 * self._count) if self._offset("DT_VERSYM") is not None else bytes(2 * self._count)
        versions = struct.unpack(f"<{self._count}H", raw)
        yield from zip(_SYMBOL.iter_unpack(content), versions, strict=True)

    def needed_versions(self) -> Iterator[tuple[int, str]]:
        """Yield the number of each version that the library needs, with the name of the library that has to give it."""
        start = self._offset("DT_VERNEED")
        counts = [tag["d_val"] for tag in self._linking.iter_tags("DT_VERNEEDNUM")]
        if start is None or not counts:
            return
        at = start
        for _ in range(min(counts[0], MAX_SYMBOLS)):
            _, auxiliaries, file, first, following = _VERSION_NEED.unpack(self._at(at, _VERSION_NEED.size))
            inner = at + first
            for _ in range(auxiliaries):
                _, _, number, _, further = _VERSION_AUX.unpack(self._at(inner, _VERSION_AUX.size))
                yield number & _VERSION_MASK, self.text(file)
                inner += further
            at += following

    def text(self, at: int) -> str:
        """Return the name at an offset of the table of names."""
        end = self._names.find(b"\0", at)
        if end < 0:
            raise NoElfError("a name in it has no end")
        return self._names[at:end].decode("ascii", "replace")

    def _symbol_count(self) -> int:
        if (start := self._offset("DT_GNU_HASH")) is not None:
            return int(hash.GNUHashTable(self._elf, start, self._linking).get_number_of_symbols())
        if (start := self._offset("DT_HASH")) is not None:
            return int(hash.ELFHashTable(self._elf, start, None, self._linking).get_number_of_symbols())
        return 0

    def _offset(self, tag: str) -> int | None:
        offset: int | None = self._linking.get_table_offset(tag)[1]
        return offset

    def _read(self, tag: str, size: int) -> bytes:
        start = self._offset(tag)
        if start is None or size == 0:
            return b""
        return b"".join(self._at(start + done, min(_PART_BYTES, size - done)) for done in range(0, size, _PART_BYTES))

    def _at(self, offset: int, size: int) -> bytes:
        stream = self._elf.stream
        stream.seek(offset)
        content: bytes = stream.read(size)
        if len(content) < size:
            raise NoElfError("it is truncated")
        return content
