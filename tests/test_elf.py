"""ELF: what is read of a file is what the linker wrote, and no file can make the reader do more than that."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.elf_files import AARCH64, HEXAGON, write_elf
from support.sentences import raising

from quadbench.errors import UserError
from quadbench.harness.runtime_library import runtime_library
from quadbench.kits.elf import ElfFile, exported_names, read_elf


def read(path: Path) -> ElfFile:
    return read_elf(path, name=path.name, fault=UserError)


def readelf(path: Path) -> tuple[tuple[str, ...], str | None, int]:
    """The needed libraries, the interpreter and the least alignment that binutils finds."""
    text = subprocess.run(["readelf", "-ldW", str(path)], capture_output=True, text=True, check=True).stdout
    interpreter = re.search(r"program interpreter: (.*)\]", text)
    alignments = re.findall(r"^ +LOAD .*(0x[0-9a-f]+)$", text, re.MULTILINE)
    needed = tuple(re.findall(r"\(NEEDED\).*\[(.*)\]", text))
    return needed, interpreter[1] if interpreter else None, min(int(alignment, 16) for alignment in alignments)


def build_id(path: Path) -> str | None:
    """The build id that binutils finds."""
    text = subprocess.run(["readelf", "-nW", str(path)], capture_output=True, text=True, check=True).stdout
    named = re.search(r"Build ID: ([0-9a-f]+)$", text, re.MULTILINE)
    return named[1] if named else None


@pytest.mark.parametrize(
    "path", [Path(sys.executable).resolve(), runtime_library(), Path("/bin/sh").resolve()], ids=lambda p: p.name
)
def test_programs_of_this_machine_are_read_as_binutils_reads_them(path: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("binutils are not installed")
    elf = read(path)
    assert (elf.needed, elf.interpreter, elf.alignment_bytes) == readelf(path)
    assert elf.machine_name == os.uname().machine
    assert elf.android_api is None
    assert elf.build_id == build_id(path)


@pytest.mark.parametrize("machine", [AARCH64, HEXAGON])
def test_a_library_of_either_width_is_read(tmp_path: Path, machine: int) -> None:
    needed = "libc.so", "m" * 256  # as long as a name may be
    path = write_elf(tmp_path / "a.so", machine=machine, needed=needed, alignment=4096, android_api=29)
    elf = read(path)
    assert (elf.machine, elf.needed, elf.alignment_bytes, elf.android_api) == (machine, needed, 4096, 29)


def test_an_alignment_that_offset_and_address_break_does_not_count(tmp_path: Path) -> None:
    path = write_elf(tmp_path / "a.so")
    content = bytearray(path.read_bytes())
    content[64 + 16 : 64 + 24] = (0x1000).to_bytes(8, "little")  # the first segment's address; its offset is 0
    path.write_bytes(content)
    assert read_elf(path, name="a.so", fault=UserError).alignment_bytes == 4096


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ()),
        (b"#!/bin/sh\n" * 10, ()),
        (b"\x7fELF\x02\x02" + bytes(100), ()),
        (b"\x7fELF\x02\x01" + bytes(100), (0, 2, 3)),
    ],
)
def test_what_is_no_elf_file_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: tuple[object, ...]) -> None:
    (tmp_path / "lib.so").write_bytes(content)
    with raising(UserError, *reason):
        read(tmp_path / "lib.so")


@pytest.mark.parametrize("alignment", [16385, 2**31, 2**63, 3 * 2**14])
def test_an_alignment_that_no_loader_takes_is_refused(tmp_path: Path, alignment: int) -> None:
    path = write_elf(tmp_path / "libx.so", alignment=alignment)
    with raising(UserError, alignment, 2):
        read_elf(path, name="libx.so", fault=UserError)


def test_no_byte_that_is_changed_ends_in_anything_but_facts_or_a_refusal(tmp_path: Path) -> None:
    path = write_elf(
        tmp_path / "lib.so", needed=("libc.so", "libm.so"), interpreter="/system/bin/linker64", android_api=29, exports=("one",)
    )
    whole, chance = path.read_bytes(), random.Random(1)
    headers = [*range(64 + 4 * 56), *range(4096, len(whole))]
    refused = 0
    for _ in range(800):
        content = bytearray(whole)
        for place in chance.choices(headers, k=chance.randint(1, 4)):
            content[place] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        path.write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
        try:
            assert exported_names(path, ("one", "two"), name="lib.so", fault=UserError) <= {"one"}
            assert len(read(path).needed) <= 256
        except UserError:
            refused += 1
    assert 100 < refused < 800
