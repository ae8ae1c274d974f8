"""ELF: reading a library's machine, needed libraries, segment alignment, notes and exported names.

The file may be hostile: pyelftools reads it through bounds, and only its segments, as a loader does.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_SET, BufferedReader, FileIO
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf import dynamic, elffile, enums, hash, segments

from quadbench.errors import QuadbenchError

HEXAGON = 164  # e_machine of files for Qualcomm's Hexagon processor
MACHINES = {3: "x86", 40: "arm, 32 bits", 62: "x86_64", HEXAGON: "hexagon", 183: "aarch64"}

_MAX_SEGMENTS, _MAX_NEEDED, _MAX_NAME_LENGTH, _MAX_BUILD_ID = 64, 256, 256, 32
_MAX_READS, _MAX_READ_BYTES = 2**16, 2**16  # reads of one file, bytes of one read
_NUMBER_BYTES = 8  # the most bytes of a number; longer reads are texts, which may end early
_MAX_ALIGNMENT = 2**30  # bytes: the largest page of any machine
_FAULTS = (ELFError, ConstructError, ArithmeticError, AssertionError, LookupError, ValueError)  # raised by pyelftools
_ANDROID_NOTE = ("Android", "NT_GNU_ABI_TAG")  # in every file linked by the NDK; its number is 1, like GNU's ABI tag


@dataclass(frozen=True, kw_only=True)
class ElfFile:
    """The properties of an ELF file that decide whether a device loads it. `alignment_bytes` is its segments' smallest alignment.

    `android_api` is the API level in Android's note, `build_id` the linker's build id in hex; None without such a note.
    """

    machine: int
    interpreter: str | None
    needed: tuple[str, ...]
    alignment_bytes: int
    android_api: int | None
    build_id: str | None

    @property
    def machine_name(self) -> str:
        """Return the name of the ELF file's processor architecture, such as `aarch64`, or `machine 8` for an unknown number."""
        return MACHINES.get(self.machine, f"machine {self.machine}")


def read_elf(path: Path, *, name: str, fault: type[QuadbenchError]) -> ElfFile:
    """Read a little-endian ELF program or shared library as an ElfFile. For any other file, raise the exception class `fault`."""
    with reading(path, f"'{name}' is not an ELF program or library", fault) as (elf, parts):
        kind = enums.ENUM_E_TYPE.get(elf["e_type"], elf["e_type"])
        if kind not in (2, 3):
            raise NoElfError(f"its ELF type is {kind}; expected 2 or 3, a program or a shared library")
        loaded = [part for part in parts if part["p_type"] == "PT_LOAD"]
        if not loaded:
            raise NoElfError("it has no loadable segment")
        noted = [note for part in parts if isinstance(part, segments.NoteSegment) for note in part.iter_notes()]
        notes = {(note["n_name"], note["n_type"]): note["n_descdata"] for note in noted}
        android, build_id = notes.get(_ANDROID_NOTE, b""), notes.get(("GNU", "NT_GNU_BUILD_ID"), b"")
        interpreters = [part.get_interp_name() for part in parts if isinstance(part, segments.InterpSegment)]
        return ElfFile(
            machine=enums.ENUM_E_MACHINE.get(elf["e_machine"], elf["e_machine"]),
            interpreter=_name(interpreters[0]) if interpreters else None,
            needed=_needed(parts),
            alignment_bytes=min(map(_alignment, loaded)),
            android_api=int.from_bytes(android[:4], "little") if len(android) >= 4 else None,
            build_id=build_id[:_MAX_BUILD_ID].hex() or None,
        )


def exported_names(path: Path, names: Iterable[str], *, name: str, fault: type[QuadbenchError]) -> frozenset[str]:
    """Return the subset of `names` that a library's symbol hash table exports. `name` is the library's name in error messages."""
    with reading(path, f"the exported names of '{name}' cannot be read", fault) as (elf, parts):
        linking = next((part for part in parts if isinstance(part, dynamic.DynamicSegment)), None)
        table: hash.GNUHashTable | hash.ELFHashTable | None = None  # the loader looks names up in this table
        if linking and (start := linking.get_table_offset("DT_GNU_HASH")[1]) is not None:
            table = hash.GNUHashTable(elf, start, linking)
        elif linking and (start := linking.get_table_offset("DT_HASH")[1]) is not None:
            table = hash.ELFHashTable(elf, start, None, linking)
        symbols = [table.get_symbol(one) for one in names] if table else []
        return frozenset(symbol.name for symbol in symbols if symbol and symbol["st_shndx"] != "SHN_UNDEF")


class NoElfError(Exception):
    """The error for a file that is not a loadable ELF file, or exceeds the limits on reading."""


class _Bounded(BufferedReader):
    """A reader for untrusted ELF files. It raises NoElfError for too many or too large reads, and for offsets beyond the end."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._reads_left = _MAX_READS
        self._size_bytes = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0 or size is None or not 0 <= size <= _MAX_READ_BYTES:
            raise NoElfError("its headers need more reads than those of any valid file")
        content = super().read(size)
        if len(content) < size <= _NUMBER_BYTES:
            raise NoElfError("it is truncated")
        return content

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        if whence == SEEK_SET and not 0 <= offset <= self._size_bytes:
            raise NoElfError("it refers to an offset beyond its end")
        return super().seek(offset, whence)


@contextmanager
def reading(path: Path, failure: str, fault: type[QuadbenchError]) -> Iterator[tuple[elffile.ELFFile, list[segments.Segment]]]:
    """Open an ELF file for a `with` block; yield `(ELFFile, list of Segments)`. Raise read errors as exception class `fault`."""
    try:
        with _Bounded(path) as file:
            identity = file.read(6)
            if identity[:4] != b"\x7fELF" or identity[4] not in (1, 2) or identity[5] != 1:
                raise NoElfError("it does not begin with a little-endian ELF header")
            elf = elffile.ELFFile(file)
            if elf["e_phnum"] > _MAX_SEGMENTS:
                raise NoElfError(f"it has {elf['e_phnum']} segments; expected at most {_MAX_SEGMENTS}")
            elf.header["e_shoff"] = 0  # ignores sections, which no loader reads
            yield elf, list(elf.iter_segments())
    except (OSError, NoElfError) as error:
        raise fault(f"{failure}: {getattr(error, 'strerror', None) or error}") from error
    except _FAULTS as error:
        raise fault(f"{failure}: its tables are invalid: {error or type(error).__name__}") from error


def _needed(parts: list[segments.Segment]) -> tuple[str, ...]:
    """Return a tuple of the names of the libraries that an ELF file needs (its DT_NEEDED entries), in the file's order."""
    names: list[str] = []
    for part in parts:
        for tag in part.iter_tags("DT_NEEDED") if isinstance(part, dynamic.DynamicSegment) else ():
            names.append(_name(vars(tag)["needed"]))
            if len(names) > _MAX_NEEDED:
                raise NoElfError(f"it needs more than {_MAX_NEEDED} libraries")
    return tuple(names)


def _name(text: str) -> str:
    if not (text.isascii() and 0 < len(text) <= _MAX_NAME_LENGTH):
        raise NoElfError(f"a name in it is not ASCII text of at most {_MAX_NAME_LENGTH} bytes")
    return text


def _alignment(segment: segments.Segment) -> int:
    """Return the largest page size in bytes with which a loader can map an ELF segment. Never exceed the segment's `p_align`."""
    alignment_bytes: int = segment["p_align"]
    if alignment_bytes > _MAX_ALIGNMENT or alignment_bytes.bit_count() > 1:  # 0 and 1 are none
        expected = f"expected a power of 2, at most {_MAX_ALIGNMENT}"
        raise NoElfError(f"it has a segment aligned to {alignment_bytes} bytes; {expected}")
    difference = segment["p_vaddr"] - segment["p_offset"]
    return min(alignment_bytes, difference & -difference) if difference else alignment_bytes
