"""ELF files: facts -> the smallest file that a loader would read them in, for kits and programs that are made up."""

import struct
from pathlib import Path

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
) -> Path:
    """Write a shared library, or a program where it has an interpreter; `says` stands somewhere in its bytes."""
    is_64 = machine != HEXAGON
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    places = [strings.index(b"\0" + name.encode() + b"\0") + 1 for name in needed]
    start = 4096  # behind headers
    note = struct.pack("<III8sI", 8, 4, 1, b"Android\0", android_api) if android_api is not None else b""
    loader = interpreter.encode() + b"\0" if interpreter else b""
    dynamic_at = start + len(strings) + len(loader) + (-len(strings) - len(loader)) % 8
    form = "<QQ" if is_64 else "<II"
    entries = [*((1, place) for place in places), (5, start), (0, 0)]
    dynamic = b"".join(struct.pack(form, tag, value) for tag, value in entries)
    note_at = dynamic_at + len(dynamic)
    body = (strings + loader).ljust(dynamic_at - start, b"\0") + dynamic + note + b"\0" + says + b"\0"
    segments = [(1, 0, start + len(body), alignment), (2, dynamic_at, len(dynamic), 8)]
    segments += [(3, start + len(strings), len(loader), 1)] if loader else []
    segments += [(4, note_at, len(note), 4)] if note else []
    path.write_bytes((_header(machine, len(segments), is_64) + _table(segments, is_64)).ljust(start, b"\0") + body)
    return path


def _header(machine: int, segments: int, is_64: bool) -> bytes:
    identity = b"\x7fELF" + bytes([2 if is_64 else 1, 1, 1]).ljust(12, b"\0")
    if is_64:
        return identity + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, segments, 64, 0, 0)
    return identity + struct.pack("<HHIIIIIHHHHHH", 3, machine, 1, 0, 52, 0, 0, 52, 32, segments, 40, 0, 0)


def _table(segments: list[tuple[int, int, int, int]], is_64: bool) -> bytes:
    if is_64:
        return b"".join(struct.pack("<IIQQQQQQ", kind, 5, at, at, at, size, size, align) for kind, at, size, align in segments)
    return b"".join(struct.pack("<IIIIIIII", kind, at, at, at, size, size, 5, align) for kind, at, size, align in segments)
