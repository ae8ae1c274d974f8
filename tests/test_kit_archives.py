"""Kits from archives of others: no name becomes a path, nothing is read without bound, and the message names the archive."""

import os
import random
import struct
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from support.bad_input.values import write_sparse
from support.elf_files import write_elf
from support.kit_files import ANDROID, RUNTIME, write_archive, write_runtime
from support.sentences import raising

from quadbench.errors import UserError
from quadbench.kits import archives, store
from quadbench.results.layout import Layout
from quadbench.results.manifest import CHECKSUM, MANIFEST
from quadbench.target.abi import Abi

Damage = Callable[[Path], None]


@pytest.fixture
def library(tmp_path: Path) -> bytes:
    """ONNX Runtime's library, made up."""
    return write_runtime(tmp_path / "libraries").read_bytes()


def added(source: Path, layout: Layout) -> list[str]:
    """The names of the libraries in the kit that the source makes."""
    return [library.name for library in store.add_kit([source], Abi.ARM64_V8A, layout).kit.artifact.libraries]


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


PATHS = ("../../../evil/", "/etc/", "jni/arm64-v8a/../../../../", "C:/windows/", "a/" * 400, "\x1b[31m/")
NO_NAMES = ("lib\x1b[31m.so", "lib..so", "lib/.so", "libx.so.\n", f"lib{'x' * 300}.so", "libü.so", "x.so", ".so", "a\\libx.so")


@pytest.mark.parametrize("path", PATHS)
def test_no_path_in_an_archive_is_one_here(path: str, layout: Layout, library: bytes, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.aar", [(f"{path}{RUNTIME}", library)])
    before = files_below(tmp_path)
    assert added(archive, layout) == [RUNTIME]
    (kit,) = store.list_kits(layout)
    assert files_below(tmp_path) - before == files_below(kit.folder)
    assert all(file.name in (MANIFEST, CHECKSUM) or len(file.name) == 64 for file in files_below(kit.folder))


@pytest.mark.parametrize("name", NO_NAMES)
def test_files_that_no_library_is_called_are_not_looked_at(name: str, layout: Layout, library: bytes, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.aar", [(name, b"no library at all"), (RUNTIME, library)])
    assert added(archive, layout) == [RUNTIME]


def test_two_libraries_of_one_name_are_refused(layout: Layout, library: bytes, tmp_path: Path) -> None:
    other = write_elf(tmp_path / "other.so", needed=ANDROID, says=b"other").read_bytes()
    archive = write_archive(tmp_path / "a.zip", [(f"a/{RUNTIME}", library), (f"b/{RUNTIME}", library)])
    assert added(archive, layout) == [RUNTIME]
    archive = write_archive(tmp_path / "b.zip", [(f"a/{RUNTIME}", library), (f"b/{RUNTIME}", other)])
    with raising(UserError, RUNTIME, "arm64-v8a"):
        added(archive, layout)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / RUNTIME).write_bytes(other)
    files = [tmp_path / "b", write_archive(tmp_path / "c.zip", [(RUNTIME, library)])]
    with raising(UserError, "b", "c.zip"):
        store.add_kit(files, Abi.ARM64_V8A, layout)


def test_an_archive_of_other_abis_alone_is_said_to_have_no_folder_for_the_one(
    layout: Layout, library: bytes, tmp_path: Path
) -> None:
    other = write_elf(tmp_path / "other.so", needed=ANDROID, says=b"other").read_bytes()
    archive = write_archive(tmp_path / "a.aar", [(f"jni/x86/{RUNTIME}", library), (f"jni/x86_64/{RUNTIME}", other)])
    with raising(UserError, RUNTIME, "no folder for arm64-v8a"):
        added(archive, layout)


def test_an_encrypted_archive_is_named_as_such(layout: Layout, library: bytes, tmp_path: Path) -> None:
    _locked(archive := write_archive(tmp_path / "a.aar", [(RUNTIME, library)]))
    with raising(UserError, "a.aar", "encrypted", "password"):
        added(archive, layout)


def test_a_library_that_unpacks_without_end_is_left(
    layout: Layout, library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    archive = write_archive(tmp_path / "bomb.aar", [(RUNTIME, library + bytes(2**24))])
    assert archive.stat().st_size < 2**16
    with raising(UserError, 1048576):
        added(archive, layout)
    many = write_archive(tmp_path / "many.aar", [(f"{number}/lib{number}.so", bytes(2**18)) for number in range(5)])
    with raising(UserError, 1048576):
        added(many, layout)
    assert files_below(layout.root) == set()


def test_a_size_that_is_declared_is_believed_before_anything_is_unpacked(
    layout: Layout, library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path / "bomb.aar", [(RUNTIME, library + bytes(2**24))])
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    monkeypatch.setattr(archives, "_copy", pytest.fail)
    with raising(UserError, 1048576):
        added(archive, layout)


def test_the_bytes_of_all_files_of_a_kit_are_counted_together(
    layout: Layout, library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 2**20)
    files = [write_archive(tmp_path / f"{number}.aar", [(f"lib{number}.so", library + bytes(2**19))]) for number in range(2)]
    with raising(UserError, "1.aar", 1048576):
        store.add_kit(files, Abi.ARM64_V8A, layout)


def test_more_members_than_any_package_has_are_refused(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    archive = write_archive(tmp_path / "a.aar", ((f"{number}.txt", b"") for number in range(101)))
    with raising(UserError, 101, 100):
        added(archive, layout)
    monkeypatch.setattr(archives, "MAX_LIBRARIES", 10)
    archive = write_archive(tmp_path / "b.aar", ((f"lib{number}.so", b"") for number in range(11)))
    with raising(UserError, 11, "arm64-v8a", 10):
        added(archive, layout)
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(101):
        (folder / f"{number}").touch()
    with raising(UserError, 100):
        added(folder, layout)


def _no_archive(path: Path) -> None:
    path.write_bytes(b"no archive" * 100)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)


def _huge_directory(path: Path) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rfind(b"PK\x05\x06") + 12, 2**31)
    path.write_bytes(content)


def _of_large_files(path: Path) -> None:
    content = path.read_bytes()
    at = content.rfind(b"PK\x05\x06")
    path.write_bytes(content[:at] + b"PK\x06\x07" + bytes(16) + content[at:])


def _locked(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + flags] |= 1
    path.write_bytes(content)


def _compressed_otherwise(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        content = archive.read(RUNTIME)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(RUNTIME, content)


DAMAGES: list[Damage] = [_no_archive, _cut, _flipped, _huge_directory, _of_large_files, _locked, _compressed_otherwise]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_a_damaged_archive_is_named(damage: Damage, layout: Layout, library: bytes, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.aar", [(RUNTIME, library)])
    damage(archive)
    with raising(UserError, "a.aar"):
        added(archive, layout)
    assert files_below(layout.root) == set()


def test_no_byte_that_is_changed_ends_in_anything_but_libraries_or_a_refusal(library: bytes, tmp_path: Path) -> None:
    archive, chance = (
        write_archive(tmp_path / "a.aar", [("AndroidManifest.xml", b"<manifest/>"), (RUNTIME, library)]),
        random.Random(1),
    )
    whole, refused = archive.read_bytes(), 0
    places = [*range(120), *range(len(whole) - 200, len(whole))]  # the first file's header, and the table of contents
    for _ in range(400):
        content = bytearray(whole)
        for place in chance.choices(places, k=chance.randint(1, 4)):
            content[place] = chance.choice((0, 1, 128, 255, chance.randrange(256)))
        archive.write_bytes(content)
        try:
            archives.extract_libraries([archive], Abi.ARM64_V8A, tmp_path)
        except UserError:
            refused += 1
    assert 50 < refused < 400


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pipe.aar", ()),
        ("absent.aar", ("No such file",)),
        ("notes.txt", ()),
        ("endless.aar", ("endless.aar", 1000000000000)),
        ("sparse/libendless.so", ("libendless.so", 1000000000000)),
        ("sparse", ()),
    ],
)
def test_what_is_no_file_of_a_kit_is_refused_at_once(
    name: str, reason: tuple[object, ...], layout: Layout, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.aar")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "sparse").mkdir()
    for sparse in ("endless.aar", "sparse/libendless.so"):
        write_sparse(tmp_path / sparse)
    with raising(UserError, *reason):
        added(tmp_path / name, layout)


def test_links_in_a_folder_lead_to_no_device(layout: Layout, library: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / RUNTIME).write_bytes(library)
    (folder / "libendless.so").symlink_to("/dev/zero")
    (folder / "up").symlink_to(tmp_path)
    assert added(folder, layout) == [RUNTIME]


def test_a_folder_in_which_nothing_can_be_looked_up_costs_no_other(layout: Layout, library: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / RUNTIME).write_bytes(library)
    (folder / "endless.txt").symlink_to("x" * 256)  # which no file system takes
    (folder / "round.txt").symlink_to("round.txt")
    assert added(folder, layout) == [RUNTIME]


@pytest.mark.parametrize("name", ["a.aar", RUNTIME])
def test_a_file_that_can_be_opened_and_not_read_is_named(name: str, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/proc/self/mem")  # whose first page no process has
    with raising(UserError, name, "Input/output error"):
        added(tmp_path / name, layout)
    assert files_below(layout.root) == set()


def test_a_library_that_is_changed_while_it_is_read_is_that_of_its_origin(
    layout: Layout, library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, other = tmp_path / RUNTIME, write_elf(tmp_path / "other.so", needed=ANDROID, says=b"other").read_bytes()
    place.write_bytes(library)
    copied = archives._copied
    monkeypatch.setattr(archives, "_copied", lambda *parts: (place.write_bytes(other), copied(*parts))[1])
    kit = store.add_kit([place], Abi.ARM64_V8A, layout).kit.artifact
    assert [origin.sha256 for origin in kit.origins] == [kit.libraries[0].file.sha256] == [sha256(other).hexdigest()]


def test_the_licence_that_a_wheel_names_is_kept(layout: Layout, library: bytes, tmp_path: Path) -> None:
    metadata = b"Metadata-Version: 2.4\nName: onnxruntime\nLicense-Expression: MIT\n\nLicense: of the description\n"
    members = [("onnxruntime/capi/" + RUNTIME, library), ("onnxruntime-1.29.0.dist-info/METADATA", metadata)]
    addition = store.add_kit([write_archive(tmp_path / "ort.whl", members)], Abi.ARM64_V8A, layout)
    assert [(origin.name, origin.licence) for origin in addition.kit.artifact.origins] == [("ort.whl", "MIT")]
