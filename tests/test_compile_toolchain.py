"""Toolchain: small programs in place of a vendor's are looked for, run and killed; their products are kept or refused."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.sentences import raising, reads, says

from quadbench.artifacts import Component, FileRef, Graph, Variant
from quadbench.compile.availability import availability
from quadbench.compile.toolchain import ToolchainCompiler
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.results.digests import sha256_of
from quadbench.target.targets import ToolchainTarget

COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"
GRAPH = Graph(
    variant=Variant.SHARED,
    component=Component.UNET,
    file=FileRef(path="shared/unet.onnx", sha256="", size_bytes=0),
    inputs=(),
    outputs=(),
)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def toolchain(*commands: list[str], **changes: Any) -> ToolchainTarget:
    declared = {
        "backend": "toolchain",
        "name": "acme",
        "commands": commands or [python(COPY, "{input}", "model.bin")],
        "product": "*.bin",
        "version": {"command": python("print('Acme NPU compiler, version 2.5.1 (release)')"), "pattern": r"version (\d\S+)"},
        "timeout_s": 60,
        "install": "ask Acme",
    }
    return ToolchainTarget.model_validate({**declared, **changes}, strict=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "bundle" / GRAPH.file.path
    source.parent.mkdir(parents=True)
    source.write_bytes(b"a graph")
    (tmp_path / "compiled").mkdir()
    return tmp_path / "compiled"


def compiled(target: ToolchainTarget, folder: Path) -> Graph:
    (graph,) = ToolchainCompiler(target=target).compile_all([GRAPH], folder.parent / "bundle", folder, lambda _graph: None).graphs
    return graph


def left_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_product_takes_the_graph_s_place_with_a_suffix_of_its_own(folder: Path) -> None:
    graph = compiled(toolchain(), folder)
    assert graph == replace(
        GRAPH, file=FileRef(path="shared/unet.bin", sha256=sha256_of(folder / "shared/unet.bin"), size_bytes=7)
    )
    assert (folder / "shared/unet.bin").read_bytes() == b"a graph"
    assert left_in(folder) == {"shared/unet.bin"}
    assert left_in(folder.parent) == {"bundle/shared/unet.onnx", "compiled/shared/unet.bin"}


def test_commands_follow_each_other_in_one_folder(folder: Path) -> None:
    convert = python("import sys; open('half', 'wb').write(open(sys.argv[1], 'rb').read().upper())", "{input}")
    compiled(toolchain(convert, python(COPY, "{work}/half", "whole.bin")), folder)
    assert (folder / "shared/unet.bin").read_bytes() == b"A GRAPH"


def test_words_reach_the_command_as_they_are(folder: Path) -> None:
    words = ["a b", "$HOME", "*", "; exit 1", "it's", ""]
    compiled(toolchain(python("import sys; open('x.bin', 'w').write(repr(sys.argv[2:]))", "{input}", *words)), folder)
    assert (folder / "shared/unet.bin").read_text() == repr(words)


def test_variables_of_the_environment_stand_in_for_their_placeholders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SDK", str(folder.parent))
    compiled(
        toolchain(python(COPY, "{ACME_SDK}/bundle/shared/unet.onnx", "m.bin"), ["true", "{input}"], environment=["ACME_SDK"]),
        folder,
    )
    assert (folder / "shared/unet.bin").read_bytes() == b"a graph"


def test_a_failure_shows_the_last_lines_and_keeps_all_in_a_log(folder: Path) -> None:
    code = "import sys; print(*('line %d' % i for i in range(100)), sep='\\n'); sys.exit('node Resize is not supported')"
    with pytest.raises(BuildError) as failed:
        compiled(toolchain(["true", "{input}"], python(code)), folder)
    message = str(failed.value)
    log = folder.parent / "acme-shared-unet.onnx.log"
    assert "toolchain 'acme' on 'shared/unet.onnx'" in message
    says(message, 1, 99)
    assert "line 80" not in message
    says(message, log)
    assert "line 0\n" in log.read_text()
    assert left_in(folder) == set()


def test_a_log_of_an_earlier_failure_goes_with_success(folder: Path) -> None:
    with pytest.raises(BuildError):
        compiled(toolchain(["false", "{input}"]), folder)
    compiled(toolchain(), folder)
    assert list(folder.parent.glob("*.log")) == []


def test_another_process_that_compiles_the_same_graph_is_not_in_the_way(folder: Path) -> None:
    log = folder.parent / "acme-shared-unet.onnx.log"
    remove = python("import pathlib, sys; pathlib.Path(sys.argv[1]).unlink(missing_ok=True)", str(log))
    compiled(toolchain(remove, python(COPY, "{input}", "m.bin")), folder)
    with pytest.raises(BuildError):
        compiled(toolchain(remove, python("print('no room'); exit(1)", "{input}")), folder)
    assert log.read_text().count("$ ") == 2
    says(log.read_text())


def test_a_command_killed_by_a_signal_says_so(folder: Path) -> None:
    with raising(BuildError, 9):
        compiled(toolchain(python("import os, sys; os.kill(os.getpid(), 9)", "{input}")), folder)


def test_a_command_that_hangs_is_killed_with_its_children(folder: Path) -> None:
    pids = folder.parent / "pids"
    code = (
        "import os, subprocess, sys, time; print('optimizing', flush=True); child = subprocess.Popen(['sleep', '600']);"
        "open(sys.argv[1], 'w').write('%d %d' % (os.getpid(), child.pid)); time.sleep(600)"
    )
    with raising(BuildError, 2):
        compiled(toolchain(python(code, str(pids), "{input}"), timeout_s=2), folder)
    assert_gone(pids.read_text().split())
    assert left_in(folder) == set()


def test_what_a_command_leaves_running_is_killed(folder: Path) -> None:
    pids = folder.parent / "pids"
    code = "import subprocess, sys; open(sys.argv[1], 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"
    compiled(toolchain(python(code, str(pids)), python(COPY, "{input}", "m.bin")), folder)
    assert_gone(pids.read_text().split())


def test_commands_that_leave_no_product_are_refused_with_what_they_left(folder: Path) -> None:
    with raising(BuildError, 0, "*.bin", "model.tmp"):
        compiled(toolchain(python(COPY, "{input}", "model.tmp")), folder)


def test_more_than_one_product_is_refused(folder: Path) -> None:
    with raising(BuildError, 2, "*.bin", "a.bin", "b.bin"):
        compiled(toolchain(python(COPY, "{input}", "a.bin"), python(COPY, "{input}", "b.bin")), folder)


def test_an_empty_product_is_refused(folder: Path) -> None:
    with raising(BuildError, "model.bin"):
        compiled(toolchain(["true", "{input}"], ["touch", "model.bin"]), folder)


def test_versions_hold_the_toolchain_s_own_and_its_commands() -> None:
    versions = ToolchainCompiler(target=toolchain(["true", "{input}"])).versions()
    assert versions == {"acme": "2.5.1", "commands": "true '{input}'", "product": "*.bin"}


def test_a_file_that_a_variable_names_counts_with_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "settings.yaml"
    monkeypatch.setenv("ACME_SETTINGS", str(settings))
    monkeypatch.setenv("ACME_SDK", str(tmp_path))
    compiler = ToolchainCompiler(target=toolchain(environment=["ACME_SDK", "ACME_SETTINGS"]))
    settings.write_text("optimization: O2")
    before = compiler.versions()
    settings.write_text("optimization: O3")
    assert compiler.versions() == {**before, "ACME_SETTINGS": sha256_of(settings)}
    assert before["ACME_SETTINGS"] != sha256_of(settings)
    assert "ACME_SDK" not in before


def test_an_option_that_a_variable_holds_counts_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = ToolchainCompiler(target=toolchain(environment=["ACME_LEVEL"]))
    monkeypatch.setenv("ACME_LEVEL", "O2")
    before = compiler.versions()
    monkeypatch.setenv("ACME_LEVEL", "O3")
    assert compiler.versions() == {**before, "ACME_LEVEL": "O3"}


def test_a_version_that_the_target_does_not_take_is_refused() -> None:
    target = toolchain(version={"command": python("print('Acme NPU compiler, version 1.9')"), "pattern": r"version (2\.\S+)"})
    with raising(MissingDependencyError, "Acme NPU compiler, version 1.9"):
        ToolchainCompiler(target=target).versions()
    assert availability(target).hint == "ask Acme"


def test_a_version_whose_group_is_not_there_is_refused() -> None:
    target = toolchain(
        version={"command": python("print('Acme NPU compiler')"), "pattern": r"Acme NPU compiler(?:, version (\S+))?"}
    )
    with raising(MissingDependencyError, "Acme NPU compiler"):
        ToolchainCompiler(target=target).versions()


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_SDK", raising=False)
    target = toolchain(["acme-convert", "{input}"], ["{ACME_SDK}/bin/acme-cc"], environment=["ACME_SDK"])
    available = availability(target)
    assert not available.is_ready
    reads(available.missing, "ACME_SDK", "acme-convert")
    assert available.hint == "ask Acme"
    with raising(MissingDependencyError, "acme", "ACME_SDK"):
        ToolchainCompiler(target=target).versions()


def test_a_program_below_a_variable_is_looked_for_where_it_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_SDK", str(tmp_path))
    target = toolchain(["{ACME_SDK}/bin/acme-cc", "{input}"], environment=["ACME_SDK"])
    assert availability(target).missing == "the program {ACME_SDK}/bin/acme-cc"


def test_an_installed_toolchain_is_ready() -> None:
    available = availability(toolchain())
    assert (available.is_ready, available.version) == (True, "2.5.1")


def assert_gone(process_ids: list[str]) -> None:
    """Wait until the processes are dead; the one that buries the orphans may take its time."""
    for process_id in process_ids:
        deadline = time.monotonic() + 5
        while (state := Path(f"/proc/{process_id}/stat")).exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline, f"process {process_id} still runs"
            time.sleep(0.02)
