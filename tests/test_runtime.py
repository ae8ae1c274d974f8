"""The command `runtime`, and packages from registries: what is fetched has the sha256 that is pinned, or is not used."""

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.elf_files import write_elf
from support.kit_files import ANDROID, RUNTIME, write_aar, write_qnn, write_runtime
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.errors import ArtifactError, MissingDependencyError, UnknownNameError, UserError
from quadbench.kits.packages import MAVEN_VARIABLE, PINS, MavenPackage, NpmPackage, PipPackage, fetch_package, find_pin
from quadbench.kits.store import fetch_kit
from quadbench.results.layout import Layout

ZEROS = "0" * 64


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A Maven repository on loopback: its folder and its address."""
    folder = tmp_path / "repository"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def published(folder: Path, place: str, libraries: list[Path]) -> str:
    """Put an AAR where Maven keeps it; return what names it on the command line."""
    group, artifact, version = place.split(":")
    path = folder / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.aar"
    path.parent.mkdir(parents=True)
    write_aar(path, libraries)
    return f"{place}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, object]:
    """The exit code and the JSON of a command."""
    code = main(["runtime", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_kit_is_added_listed_shown_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(tmp_path / "results")]
    write_qnn(tmp_path / "qnn")
    code, row = answer(capsys, "add", str(tmp_path / "qnn"), *results)
    assert code == 0
    digest = row["digest"]
    assert [kit["digest"] for kit in answer(capsys, "list", *results)[1]] == [digest]
    assert main(["runtime", "show", digest[:6], *results]) == 0
    shown = capsys.readouterr().out
    words = (digest[:16], "arm64-v8a", "onnxruntime 1.29.0", "libQnnHtpV79Skel.so              skel", "6 libraries")
    assert [word for word in words if word not in shown] == []
    assert answer(capsys, "remove", digest[:6], *results)[0] == 0
    assert answer(capsys, "list", *results)[1] == []


def test_files_that_make_no_kit_end_with_every_reason_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runtime(tmp_path / "kit", alignment=4096, needed=(*ANDROID, "libhidden.so"))
    assert main(["runtime", "add", str(tmp_path / "kit"), "--results", str(tmp_path / "results")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    says(error, "arm64-v8a", 4)


def test_a_kit_is_shown_with_the_targets_of_a_device_that_it_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(tmp_path / "results")]
    write_runtime(tmp_path / "kit")
    digest = answer(capsys, "add", str(tmp_path / "kit"), *results)[1]["digest"]
    code, row = answer(capsys, "show", digest, "--profile", "s25", *results)
    assert code == 0
    assert row["targets"]["onnxruntime-cpu-aarch64"] == []
    says(row["targets"]["qnn-v79-69"][0])


def test_a_kit_for_boards_runs_nothing_on_a_phone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(tmp_path / "results")]
    write_runtime(tmp_path / "kit", needed=("libc.so.6",), alignment=65536)
    digest = answer(capsys, "add", str(tmp_path / "kit"), "--abi", "arm64-linux", *results)[1]["digest"]
    code, row = answer(capsys, "show", digest, "--profile", "s25", *results)
    assert code == ArtifactError.exit_code
    for reasons in row["targets"].values():
        says(reasons, "arm64-linux", "arm64-v8a")


def test_another_build_than_the_compilers_stands_beside_the_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_qnn(tmp_path / "qnn", build="2.48.40.260702151143")
    assert main(["runtime", "add", str(tmp_path / "qnn"), "--results", str(tmp_path / "results")]) == 0
    shown = capsys.readouterr().out
    says(shown, "2.48.40.260702151143", "onnxruntime-qnn==2.4.0")


def test_packages_of_a_maven_repository_make_one_kit(
    repository: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = repository
    libraries = write_qnn(tmp_path / "qnn")
    names = [
        published(folder, "com.microsoft.onnxruntime:onnxruntime-android:1.29.0", libraries[:1]),
        published(folder, "com.qualcomm.qti:onnxruntime-android-qnn:2.6.0", libraries[1:2]),
        published(folder, "com.qualcomm.qti:qnn-runtime:2.50.40", libraries[2:]),
    ]
    monkeypatch.setenv(MAVEN_VARIABLE, f"{address}/")
    code, row = answer(capsys, "fetch", *names, "--results", str(tmp_path / "results"))
    assert (code, len(row["libraries"])) == (0, 6)
    assert row["origins"][1]["name"] == "Maven com.qualcomm.qti:onnxruntime-android-qnn:2.6.0"


def test_a_package_with_another_sha256_is_not_used(repository: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = repository
    name = published(folder, "a.b:c:1", [write_runtime(tmp_path / "kit")])
    pin = find_pin(f"{name.partition('#')[0]}#sha256={ZEROS}")
    layout = Layout(tmp_path / "results")
    with raising(ArtifactError, "Maven a.b:c:1", "sha256", ZEROS):
        fetch_kit([pin], layout, maven=address)
    assert list(layout.kits.iterdir()) == []


def test_a_package_that_the_repository_lacks_is_named_with_its_address(repository: tuple[Path, str], tmp_path: Path) -> None:
    package = MavenPackage(group="a.b", artifact="c", version="1", sha256=ZEROS)
    with raising(MissingDependencyError, "Maven a.b:c:1", "/a/b/c/1/c-1.aar"):
        fetch_package(package, tmp_path, archive=repository[1])


@pytest.mark.parametrize(
    "text", ["a:b:1", "a:b:1#sha256=12", f"a:../b:1#sha256={ZEROS}", f"a:b:../..#sha256={ZEROS}", f":::#sha256={ZEROS}"]
)
def test_a_package_that_is_not_named_whole_is_refused(text: str) -> None:
    with raising(UserError):
        find_pin(text)


def test_an_unknown_package_is_answered_with_the_pinned_ones() -> None:
    with raising(UnknownNameError, "onnxruntime-andriod", "onnxruntime-android"):
        find_pin("onnxruntime-andriod")


def test_packages_for_two_abis_make_no_kit(tmp_path: Path) -> None:
    with raising(UserError, "arm64-linux", "arm64-v8a"):
        fetch_kit(list(PINS.values()), Layout(tmp_path), maven="https://example.org")


def write_npm(folder: Path, script: str) -> None:
    """A program called npm."""
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)


def test_npm_and_pip_are_asked_as_their_users_ask_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    write_elf(package / RUNTIME)
    write_npm(tmp_path, f'echo "$@" >"{tmp_path}/asked"; tar -czf "$4/a-1.tgz" -C "{tmp_path}" package')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    pinned = NpmPackage(name="a", version="1", sha256=ZEROS, licence="MIT", member=f"package/{RUNTIME}")
    folder = tmp_path / "fetched"
    folder.mkdir()
    with raising(ArtifactError, "npm a@1", "sha256"):
        fetch_package(pinned, folder, archive="")
    assert (tmp_path / "asked").read_text() == f"pack a@1 --pack-destination {folder}\n"


def test_a_registry_that_does_not_answer_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npm(tmp_path, "echo 'npm error 404 \x1b[31mno such package' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    pinned = NpmPackage(name="a", version="1", sha256=ZEROS, licence="MIT", member="a")
    with raising(MissingDependencyError, "npm a@1", 404):
        fetch_package(pinned, tmp_path, archive="")


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with raising(MissingDependencyError):
        fetch_package(PINS["onnxruntime-android"].package, tmp_path, archive="")


def test_pins_are_whole() -> None:
    for pin in PINS.values():
        assert isinstance(pin.package, NpmPackage | PipPackage)
        assert len(pin.package.sha256) == 64
        assert pin.package.licence
