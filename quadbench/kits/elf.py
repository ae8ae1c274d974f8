"""ELF: a file -> the machine it is for, the libraries it needs, how its segments are aligned, and the names that it exports.

The file may be hostile: what it says of itself is read within bounds, and only the parts that the loader reads.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_END, BufferedReader
from pathlib import Path
from typing import NamedTuple

from quadbench.errors import QuadbenchError

HEXAGON = 164  # e_machine of what runs on Qualcomm's Hexagon processor
MACHINES = {3: "x86", 40: "arm, 32 bits", 62: "x86_64", HEXAGON: "hexagon", 183: "aarch64"}

_LOAD, _DYNAMIC, _INTERPRETER, _NOTE = 1, 2, 3, 4  # p_type
_NEEDED, _HASH, _STRING_TABLE, _SYMBOL_TABLE, _STRING_BYTES, _GNU_HASH = 1, 4, 5, 6, 10, 0x6FFFFEF5  # d_tag
_MOST_SEGMENTS, _MOST_ENTRIES, _MOST_NEEDED, _MOST_SYMBOLS = 64, 4096, 256, 65536
_MOST_SYMBOL_NAMES = 2**23  # bytes of all names
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
_MOST_NOTES, _LONGEST_NAME, _MOST_BUILD_ID = 4096, 256, 32  # bytes
_ANDROID_NOTE = (b"Android\0", 1)  # of the NDK, in everything that it links; it begins with the API level
_BUILD_ID_NOTE = (b"GNU\0", 3)
_HEADER_BYTES = 64
_MOST_ALIGNMENT = 2**30  # bytes: the largest page of any machine


@dataclass(frozen=True, kw_only=True)
class ElfFile:
    """The facts about an ELF file. `alignment_bytes` is the least of its loaded segments.

    `android_api` is the API level that Android's note names, `build_id` what the linker's note says, in hex; None where there is
    no such note.
    """

    machine: int
    interpreter: str | None
    needed: tuple[str, ...]
    alignment_bytes: int
    android_api: int | None
    build_id: str | None

    @property
    def machine_name(self) -> str:
        """Return the machine in a word."""
        return MACHINES.get(self.machine, f"machine {self.machine}")


def read_elf(path: Path, *, name: str, fault: type[QuadbenchError]) -> ElfFile:
    """Read the headers of a program or a shared library, of 32 or 64 bits, little-endian. `name` is what errors call it.

    Raises:
        QuadbenchError: a `fault`: the file cannot be read, or is no such file.
    """
    with _reading(path, f"'{name}' is no ELF file of a program or library", fault) as reader:
        return reader.read()


def exported_names(path: Path, *, name: str, fault: type[QuadbenchError]) -> frozenset[str]:
    """Read the names of the functions and data that a library of 64 bits lets others look up. `name` is what errors call it."""
    with _reading(path, f"the names that '{name}' exports cannot be read", fault) as reader:
        return frozenset(reader.exported())


@contextmanager
def _reading(path: Path, failure: str, fault: type[QuadbenchError]) -> Iterator["_Reader"]:
    try:
        with path.open("rb") as file:
            yield _Reader(file)
    except (OSError, struct.error, _NoElfError) as error:
        raise fault(f"{failure}: {getattr(error, 'strerror', None) or error}") from error


class _NoElfError(Exception):
    """The error of a file that is cut off, or that no loader would take."""


class _Stretch(NamedTuple):
    kind: int
    offset: int
    address: int
    size_bytes: int
    alignment_bytes: int


class _Reader:
    """A file that is read piece by piece, each of a bounded size."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._size_bytes = file.seek(0, SEEK_END)
        identity = self._at(0, 16)
        if identity[:4] != b"\x7fELF" or identity[4] not in (1, 2) or identity[5] != 1:
            raise _NoElfError("it does not begin as a little-endian ELF file does")
        self._is_64 = identity[4] == 2

    def read(self) -> ElfFile:
        header = self._header()
        kind, machine = struct.unpack_from("<HH", header, 16)
        if kind not in (2, 3):
            raise _NoElfError(f"its type is {kind}; expected 2 or 3, a program or a shared library")
        segments = list(self._segments(header))
        loaded = [segment for segment in segments if segment.kind == _LOAD]
        if not loaded:
            raise _NoElfError("it has no segment that is loaded")
        for segment in loaded:
            if segment.alignment_bytes > _MOST_ALIGNMENT or segment.alignment_bytes.bit_count() > 1:  # 0 and 1 are none
                expected = f"expected a power of 2, at most {_MOST_ALIGNMENT}"
                raise _NoElfError(f"a segment of it is aligned to {segment.alignment_bytes} bytes; {expected}")
        notes = {key: content for segment in segments if segment.kind == _NOTE for key, content in self._notes(segment)}
        android, build_id = notes.get(_ANDROID_NOTE, b""), notes.get(_BUILD_ID_NOTE, b"")
        return ElfFile(
            machine=machine,
            interpreter=next((self._text(s.offset) for s in segments if s.kind == _INTERPRETER), None),
            needed=self._needed(segments, loaded),
            alignment_bytes=min(_alignment(segment) for segment in loaded),
            android_api=int.from_bytes(android[:4], "little") if len(android) >= 4 else None,
            build_id=build_id[:_MOST_BUILD_ID].hex() or None,
        )

    def exported(self) -> Iterator[str]:
        if not self._is_64:
            raise _NoElfError("it is of 32 bits")
        segments = list(self._segments(self._header()))
        tags = dict(entry for segment in segments if segment.kind == _DYNAMIC for entry in self._dynamic(segment))
        if not {_SYMBOL_TABLE, _STRING_TABLE, _STRING_BYTES} <= set(tags):
            return
        count = self._symbol_count(segments, tags)
        if count > _MOST_SYMBOLS or tags[_STRING_BYTES] > _MOST_SYMBOL_NAMES:
            expected = f"expected at most {_MOST_SYMBOLS} in {_MOST_SYMBOL_NAMES}"
            raise _NoElfError(f"it has {count} names in {tags[_STRING_BYTES]} bytes; {expected}")
        texts = self._at(_place(segments, tags[_STRING_TABLE]), tags[_STRING_BYTES])
        table = self._at(_place(segments, tags[_SYMBOL_TABLE]), count * _SYMBOL.size)
        for at, _, _, section, _, _ in _SYMBOL.iter_unpack(table):
            if section:  # of 0 are those that it looks up elsewhere
                yield texts[at : at + _LONGEST_NAME].partition(b"\0")[0].decode(errors="replace")

    def _symbol_count(self, segments: list[_Stretch], tags: dict[int, int]) -> int:
        """Return the number of symbols. No header says it: it follows from the table in which the loader looks names up."""
        if _GNU_HASH not in tags:
            return int(struct.unpack("<II", self._at(_place(segments, tags[_HASH]), 8))[1]) if _HASH in tags else 0
        start = _place(segments, tags[_GNU_HASH])
        buckets, first, words, _ = struct.unpack("<IIII", self._at(start, 16))
        if buckets > _MOST_SYMBOLS or words > _MOST_SYMBOLS:
            raise _NoElfError(f"its names are looked up in {buckets} lists; expected at most {_MOST_SYMBOLS}")
        chains = start + 16 + 8 * words + 4 * buckets
        last = max(struct.unpack(f"<{buckets}I", self._at(chains - 4 * buckets, 4 * buckets)), default=0)
        while first <= last < _MOST_SYMBOLS:  # the end of the last list is marked by an odd number
            (mark,) = struct.unpack("<I", self._at(chains + 4 * (last - first), 4))
            last += 1
            if mark & 1:
                break
        return int(max(last, first))

    def _header(self) -> bytes:
        return self._at(0, _HEADER_BYTES if self._is_64 else 52)

    def _segments(self, header: bytes) -> Iterator[_Stretch]:
        (start,) = struct.unpack_from("<Q", header, 32) if self._is_64 else struct.unpack_from("<I", header, 28)
        size_bytes, count = struct.unpack_from("<HH", header, 54 if self._is_64 else 42)
        if count > _MOST_SEGMENTS:
            raise _NoElfError(f"it has {count} segments; expected at most {_MOST_SEGMENTS}")
        if size_bytes != (56 if self._is_64 else 32):
            raise _NoElfError(f"its segments are described in {size_bytes} bytes each")
        table = self._at(start, size_bytes * count)
        for entry in range(0, len(table), size_bytes):
            if self._is_64:
                kind, _, offset, address, _, size, _, alignment = struct.unpack_from("<IIQQQQQQ", table, entry)
            else:
                kind, offset, address, _, size, _, _, alignment = struct.unpack_from("<IIIIIIII", table, entry)
            yield _Stretch(kind, offset, address, size, alignment)

    def _needed(self, segments: list[_Stretch], loaded: list[_Stretch]) -> tuple[str, ...]:
        """Return the names of the libraries that the loader looks for, in order."""
        entries = [entry for segment in segments if segment.kind == _DYNAMIC for entry in self._dynamic(segment)]
        strings = next((value for tag, value in entries if tag == _STRING_TABLE), None)
        names = [value for tag, value in entries if tag == _NEEDED]
        if not names:
            return ()
        if len(names) > _MOST_NEEDED:
            raise _NoElfError(f"it needs {len(names)} libraries; expected at most {_MOST_NEEDED}")
        if strings is None:
            raise _NoElfError("the libraries that it needs have no names")
        start = _place(loaded, strings)
        return tuple(self._text(start + name) for name in names)

    def _dynamic(self, segment: _Stretch) -> Iterator[tuple[int, int]]:
        form = struct.Struct("<QQ" if self._is_64 else "<II")
        table = self._at(segment.offset, min(segment.size_bytes, form.size * _MOST_ENTRIES))
        for tag, value in form.iter_unpack(table[: len(table) // form.size * form.size]):
            if tag == 0:
                return
            yield tag, value

    def _notes(self, segment: _Stretch) -> Iterator[tuple[tuple[bytes, int], bytes]]:
        """Yield each note: the name of who wrote it with its kind, and its content."""
        notes, at = self._at(segment.offset, min(segment.size_bytes, _MOST_NOTES)), 0
        while at + 12 <= len(notes):
            name_bytes, content_bytes, kind = struct.unpack_from("<III", notes, at)
            name, content = at + 12, at + 12 + -(-name_bytes // 4) * 4
            if content + content_bytes > len(notes):
                return
            yield (notes[name : name + name_bytes], kind), notes[content : content + content_bytes]
            at = content + -(-content_bytes // 4) * 4

    def _text(self, offset: int) -> str:
        text, end, _ = self._at(offset, _LONGEST_NAME, may_end=True).partition(b"\0")
        if not end or not text.isascii():
            raise _NoElfError(f"a name in it is no text of at most {_LONGEST_NAME} bytes")
        return text.decode()

    def _at(self, offset: int, size_bytes: int, *, may_end: bool = False) -> bytes:
        if offset > self._size_bytes:
            raise _NoElfError("a part of it would begin beyond its end")
        self._file.seek(offset)
        content = self._file.read(size_bytes)
        if len(content) < size_bytes and not may_end:
            raise _NoElfError("it is cut off")
        return content


def _place(segments: list[_Stretch], address: int) -> int:
    """Return where in the file that lies which the loader puts at an address."""
    for segment in segments:
        if segment.kind == _LOAD and segment.address <= address < segment.address + segment.size_bytes:
            return segment.offset + address - segment.address
    raise _NoElfError("a table of it lies outside of what is loaded")


def _alignment(segment: _Stretch) -> int:
    """Return the largest page for which the loader could map a segment: a power of 2 by which offset and address agree."""
    difference = segment.address - segment.offset
    fitting = difference & -difference if difference else segment.alignment_bytes
    return min(segment.alignment_bytes, fitting)
