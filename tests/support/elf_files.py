"""ELF files: facts -> the smallest file that a loader would read them in, for kits and programs that are made up."""

import struct
from pathlib import Path

from elftools.elf.hash import GNUHashTable

AARCH64, HEXAGON, X86_64 = 183, 164, 62
BIONIC = ("libc.so",)
PAGE_16_KB = 16384


def write_elf(
    path: Path,
    *,
    machine: int = AARCH64,
    needed: tuple[str, ...] = BIONIC,
    alignment: int = PAGE_16_KB,
    interpreter: str | None = None,
    android_api: int | None = None,
    says: bytes = b"",
    exports: tuple[str, ...] = (),
    is_old: bool = False,
) -> Path:
    """Write a shared library, or a program where it has an interpreter; `says` stands somewhere in its bytes.

    It exports names. Of an old one they are found by the hash table that linkers wrote before GNU's.
    """
    is_64 = machine != HEXAGON
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in (*needed, *exports))
    places = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in needed]
    start = 4096  # behind headers
    note = struct.pack("<III8sI", 8, 4, 1, b"Android\0", android_api) if android_api is not None else b""
    loader = interpreter.encode() + b"\0" if interpreter else b""
    dynamic_at = start + len(strings) + len(loader) + (-len(strings) - len(loader)) % 8
    form = "<QQ" if is_64 else "<II"
    hashes, symbols = (_hash_table(exports, is_old), _symbols(strings, exports)) if exports else (b"", b"")
    hashes_at = dynamic_at + (len(places) + (5 if exports else 2)) * struct.calcsize(form)
    kind = 4 if is_old else 0x6FFFFEF5
    tables = [(kind, hashes_at), (6, hashes_at + len(hashes)), (10, len(strings))] if exports else []
    entries = [*((1, place) for place in places), (5, start), *tables, (0, 0)]
    dynamic = b"".join(struct.pack(form, tag, value) for tag, value in entries) + hashes + symbols
    note_at = dynamic_at + len(dynamic)
    body = (strings + loader).ljust(dynamic_at - start, b"\0") + dynamic + note + b"\0" + says + b"\0"
    segments = [(1, 0, start + len(body), alignment), (2, dynamic_at, len(entries) * struct.calcsize(form), 8)]
    segments += [(3, start + len(strings), len(loader), 1)] if loader else []
    segments += [(4, note_at, len(note), 4)] if note else []
    path.write_bytes((_header(machine, len(segments), is_64) + _table(segments, is_64)).ljust(start, b"\0") + body)
    return path


def _hash_table(exports: tuple[str, ...], is_old: bool) -> bytes:
    """Return the table in which a loader looks names up, all in one list. In GNU's the last mark is odd."""
    first = 2
    if is_old:
        symbols = first + len(exports)
        return struct.pack(f"<{3 + symbols}I", 1, symbols, first, *[0] * first, *range(first + 1, symbols), 0)
    marks = [GNUHashTable.gnu_hash(name) & ~1 for name in exports]
    return struct.pack(f"<IIIIQI{len(marks)}I", 1, first, 1, 0, 2**64 - 1, first, *marks[:-1], marks[-1] | 1)


def _symbols(strings: bytes, exports: tuple[str, ...]) -> bytes:
    """Return the symbols: one without a name, a weak one that is looked up elsewhere, and those exported."""

    def place(name: str) -> int:
        return strings.index(b"\0" + name.encode() + b"\0") + 1

    elsewhere = [struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0), struct.pack("<IBBHQQ", 1, 34, 0, 0, 0, 0)]
    return b"".join([*elsewhere, *(struct.pack("<IBBHQQ", place(name), 18, 0, 1, 4096, 8) for name in exports)])


def _header(machine: int, segments: int, is_64: bool) -> bytes:
    identity = b"\x7fELF" + bytes([2 if is_64 else 1, 1, 1]).ljust(12, b"\0")
    if is_64:
        return identity + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, segments, 64, 0, 0)
    return identity + struct.pack("<HHIIIIIHHHHHH", 3, machine, 1, 0, 52, 0, 0, 52, 32, segments, 40, 0, 0)


def _table(segments: list[tuple[int, int, int, int]], is_64: bool) -> bytes:
    if is_64:
        return b"".join(struct.pack("<IIQQQQQQ", kind, 5, at, at, at, size, size, align) for kind, at, size, align in segments)
    return b"".join(struct.pack("<IIIIIIII", kind, at, at, at, size, size, 5, align) for kind, at, size, align in segments)
