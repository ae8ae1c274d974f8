"""Headers of the harness that are not installed come from pinned Debian packages, once."""

import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.sentences import raising

from quadbench.errors import ArtifactError, MissingDependencyError
from quadbench.harness import build_inputs
from quadbench.harness.build_inputs import LIBRARIES, linked_headers, runtime_header_sha256
from quadbench.harness.program import OVERRIDE, PROGRAM
from quadbench.kits.packages import DEBIAN_VARIABLE


def deb(*names: str, data: str = "data.tar.xz") -> bytes:
    """A Debian package with an odd number of bytes before its data, and a link that must not be followed."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as files:
        for name in names:
            entry = tarfile.TarInfo(f"./usr/{name}")
            entry.size = len(name)
            files.addfile(entry, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("./usr/include/stb/passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        files.addfile(link)
    parts = {"debian-binary": b"2.0", data: content.getvalue()}
    rows = (f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
            for name, part in parts.items())  # fmt: skip
    return b"!<arch>\n" + b"".join(rows)


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Debian's archive in a folder."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a mirror of Debian's archive, on a machine without headers."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setattr(Mirror, "asked", [], raising=False)
    monkeypatch.setattr(build_inputs, "find_header", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(DEBIAN_VARIABLE, f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()


def publish(mirror: Path, monkeypatch: pytest.MonkeyPatch, **contents: bytes) -> None:
    """Serve the libraries' packages, pinned by their own digests; those named in `contents` have that content."""
    pinned = []
    for library in LIBRARIES:
        content = contents.get(library.folder, deb(f"include/{library.folder}/{library.header}", "include/other.h", "lib/x.so"))
        place = mirror / library.package.path
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
        package = replace(library.package, sha256=hashlib.sha256(content).hexdigest())
        pinned.append(replace(library, package=package))
    monkeypatch.setattr(build_inputs, "LIBRARIES", tuple(pinned))


def link(folder: Path, cache: Path) -> tuple[str, ...]:
    folder.mkdir()
    return linked_headers(folder, cache)


def test_headers_that_are_missing_are_fetched_once(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(mirror, monkeypatch)
    cache, folder = tmp_path / "cache", tmp_path / "first"
    options = link(folder, cache)
    places = dict(option.removeprefix("-D").split("=") for option in options)
    assert places == {
        "ONNXRUNTIME_INCLUDE_DIR": f"{folder}/onnxruntime",
        "NLOHMANN_JSON_INCLUDE_DIR": str(folder),
        "STB_INCLUDE_DIR": f"{folder}/stb",
    }
    for library in LIBRARIES:
        assert (folder / library.folder / library.header).read_text() == f"include/{library.folder}/{library.header}"
    kept = sorted(path.name for path in cache.rglob("*") if path.is_file() or path.is_symlink())
    assert kept == sorted(library.header for library in LIBRARIES)  # no library, no link, no leftover
    assert len(Mirror.asked) == len(LIBRARIES)
    assert len(link(tmp_path / "second", cache)) == len(options)
    assert len(Mirror.asked) == len(LIBRARIES)


def test_a_build_knows_the_package_that_its_header_would_come_from(mirror: Path) -> None:
    assert runtime_header_sha256() == LIBRARIES[0].package.sha256


def test_another_package_than_the_pinned_one_is_not_unpacked(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(mirror, monkeypatch)
    stb = build_inputs.LIBRARIES[2].package
    (mirror / stb.path).write_bytes(deb("include/stb/stb_image_write.h", "include/stb/more.h"))
    with raising(ArtifactError, stb.name, snapshot=False):
        link(tmp_path / "headers", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("stb*"))


@pytest.mark.parametrize(
    "content",
    [deb("include/stb/stb.h"), deb("include/stb/stb_image_write.h", data="data.tar.zst"), b"!<arch>\n", b"", b"PK\3\4"],
    ids=["no header", "other compression", "empty archive", "no byte", "a zip"],
)
def test_a_package_without_the_header_is_named(
    content: bytes, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(mirror, monkeypatch, stb=content)
    with raising(ArtifactError):
        link(tmp_path / "headers", tmp_path / "cache")


def test_without_network_the_message_names_the_mirror(mirror: Path, tmp_path: Path) -> None:
    name = LIBRARIES[0].package.name
    with raising(MissingDependencyError, name, DEBIAN_VARIABLE, snapshot=False):
        link(tmp_path / "headers", tmp_path / "cache")


@pytest.mark.slow
def test_a_harness_is_built_where_no_header_is_installed(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in (OVERRIDE, DEBIAN_VARIABLE)}
    hidden = [word for library in LIBRARIES for word in ("--tmpfs", f"/usr/include/{library.folder}")]
    command = [sys.executable, "-m", "quadbench", "harness", "build", "--results", str(tmp_path)]
    result = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", *hidden, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (built,) = tmp_path.glob(f"harness/*/{PROGRAM}")
    assert f"{built}\n" == result.stdout
