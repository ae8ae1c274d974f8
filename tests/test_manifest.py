"""Manifests: an artifact comes back as it was written, or is refused with what is wrong with it."""

import json
import subprocess
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from support.forked import Forked
from support.sentences import raising, says
from support.shared_files import write_shared_bundle

from quadbench.artifacts import Bundle, CompiledBundle, Component, Graph, TensorSpec, Variant
from quadbench.artifacts.run_record import file_refs
from quadbench.errors import ArtifactError
from quadbench.results.documents import document_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import (
    CHECKSUM,
    MANIFEST,
    _content,
    check_contents,
    file_ref,
    publish,
    read_checked,
    read_manifest,
)

DIGEST, OTHER = "d0" * 32, "e0" * 32
OPENING = "from pathlib import Path; from quadbench.results.manifest import temporary_folder"

CONTAINER = """
import ctypes, os, subprocess
assert ctypes.CDLL(None).unshare(0x20000000 | 0x00020000) == 0  # CLONE_NEWPID, CLONE_NEWNS
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for words in (["--make-rprivate", "/"], ["-t", "proc", "proc", "/proc"]):
    subprocess.run(["mount", *words], check=True)
assert os.getpid() == 1
"""


def _make(folder: Path) -> CompiledBundle:
    graph = folder / "shared" / "unet.onnx"
    graph.parent.mkdir()
    graph.write_bytes(b"a graph")
    spec = TensorSpec(name="lora.a.down", shape=(4, 8), dtype="int16", scale=0.5)
    part = Graph(variant=Variant.SHARED, component=Component.UNET, file=file_ref(folder, graph), inputs=(spec,), outputs=())
    return CompiledBundle(
        digest=DIGEST, parent_digest="p", target="onnxruntime-cpu-x86_64", tool_versions={"a": "1"}, graphs=(part,)
    )


def test_an_artifact_comes_back_as_it_was_written(tmp_path: Path) -> None:
    published = publish(tmp_path / "made", _make)
    stored = read_manifest(tmp_path / "made", CompiledBundle)
    assert (stored.artifact, stored.folder) == (published.artifact, tmp_path / "made")
    assert (published.is_reused, stored.is_reused) == (False, True)


def test_the_same_artifact_published_again_is_kept_where_it_is_whole(tmp_path: Path) -> None:
    first = publish(tmp_path / "made", _make)
    place = first.folder.stat().st_ino
    assert publish(tmp_path / "made", _make) == replace(first, is_reused=True)
    assert first.folder.stat().st_ino == place


@pytest.mark.parametrize("name", ["shared/unet.onnx", MANIFEST])
def test_a_damaged_artifact_is_replaced_and_that_is_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored = publish(tmp_path / "made", _make)
    (tmp_path / "made" / name).write_bytes(b"a grapi")
    assert publish(tmp_path / "made", _make) == stored
    says(caplog.text)
    assert read_checked(tmp_path / "made", CompiledBundle).artifact == stored.artifact
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_processes_that_publish_at_once_disturb_no_reader(tmp_path: Path) -> None:
    """One artifact, published and read by several processes: each sees it whole, and nothing else is left."""
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        digests = [future.result() for future in [pool.submit(_publish_and_read, tmp_path / "made") for _ in range(60)]]
    assert set(digests) == {DIGEST}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def _publish_and_read(folder: Path) -> str:
    publish(folder, _make)
    return read_checked(folder, CompiledBundle).artifact.digest


def test_publishing_again_replaces_the_folder_whole(tmp_path: Path) -> None:
    publish(tmp_path / "made", _make)
    (tmp_path / "made/left-over").write_text("old")
    publish(tmp_path / "made", lambda folder: replace(_make(folder), digest=OTHER))
    assert read_manifest(tmp_path / "made", CompiledBundle).artifact.digest == OTHER
    assert not (tmp_path / "made/left-over").exists()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> CompiledBundle:
        _make(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "made", fail)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_whatever_it_was_to_be(tmp_path: Path) -> None:
    program = f"import os\n{OPENING}\nwith temporary_folder(Path({str(tmp_path / 'other')!r})): os._exit(9)"
    with Forked(program) as killed:
        killed.communicate()
        assert killed.returncode == 9
    (tmp_path / ".qnn").mkdir()  # is kept on purpose
    assert len(list(tmp_path.glob(".other.*"))) == 1
    publish(tmp_path / "made", _make)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".qnn", "made"]


def test_containers_that_build_in_one_folder_leave_each_other_s_work_alone(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make PID namespaces")
    program = (
        f"import sys\n{CONTAINER}\n{OPENING}\nwith temporary_folder(Path({str(tmp_path / 'scratch')!r})) as folder:\n"
        "    (folder / 'weights').touch()\n    print(folder, flush=True)\n"
        "    sys.stdin.read()\n    assert (folder / 'weights').exists()"
    )
    with ExitStack() as stack:
        builds = [stack.enter_context(Forked(program)) for _ in range(2)]
        folders = {build.stdout.readline() for build in builds}
        assert len(folders) == 2
        for build in builds:
            assert (build.communicate(), build.returncode) == (("", ""), 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: len(text) // 2], ()),
        (lambda text: "", ()),
        (lambda text: "[]", ("schema_version", "None", 1)),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 2'), ("schema_version", 2, 1)),
        (lambda text: text.replace('"shared"', '"sharde"'), ("graphs.0.variant",)),
        (lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "target"}), ()),
        (lambda text: text.replace('"size_bytes": 7', '"size_bytes": 8'), (7, 8)),
        (lambda text: text.replace("shared/unet.onnx", "shared/lost.onnx"), ("lost.onnx",)),
        (lambda text: text.replace("shared/unet.onnx", "../unet.onnx"), ("graphs.0.file.path", "../unet.onnx")),
        (lambda text: text.replace("shared/unet.onnx", "/etc/passwd"), ("graphs.0.file.path", "/etc/passwd")),
        (lambda text: text.replace("shared/unet.onnx", "x" * 5000), (1024,)),
        (lambda text: text.replace('"1"', "[" * 5000 + "]" * 5000), ()),
    ],
)
def test_a_spoilt_manifest_is_refused_with_what_to_do(tmp_path: Path, spoil: object, message: tuple[object, ...]) -> None:
    publish(tmp_path / "made", _make)
    manifest = tmp_path / "made/manifest.json"
    manifest.write_text(spoil(manifest.read_text()))
    with pytest.raises(ArtifactError) as refusal:
        read_manifest(tmp_path / "made", CompiledBundle)
    says(str(refusal.value), *message)


@pytest.mark.parametrize("name", ["unet.json", "unet.textproto", "onnx"])
def test_a_graph_of_a_bundle_is_an_onnx_file_by_its_name(name: str, tmp_path: Path) -> None:
    for field in ("file", "merge"):
        stored = write_shared_bundle(Layout(tmp_path / field))
        (graph, *_) = stored.artifact.graphs
        wrong = replace(graph.file, path=f"shared/{name}")
        raw = json.loads(json.dumps(asdict(replace(stored.artifact, graphs=(replace(graph, **{field: wrong}),)))))
        with raising(ArtifactError, "graphs.0", f"shared/{name}"):
            document_of(raw, Bundle, name="the manifest", hint="build it anew")


@pytest.mark.parametrize("name", [MANIFEST, CHECKSUM])
def test_any_changed_byte_of_a_manifest_or_its_checksum_is_refused(name: str, tmp_path: Path) -> None:
    path = publish(tmp_path / "made", _make).folder / name
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with raising(ArtifactError, "made/", snapshot=False):
            read_manifest(tmp_path / "made", CompiledBundle)
    path.write_bytes(content)
    read_manifest(tmp_path / "made", CompiledBundle)


def test_the_checksum_is_one_that_others_can_check(tmp_path: Path) -> None:
    publish(tmp_path / "made", _make)
    subprocess.run(["sha256sum", "--check", "--strict", CHECKSUM], cwd=tmp_path / "made", check=True, capture_output=True)


def test_a_manifest_without_its_checksum_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "made", _make)
    (tmp_path / "made" / CHECKSUM).unlink()
    with raising(ArtifactError, "manifest.sha256", "No such file"):
        read_manifest(tmp_path / "made", CompiledBundle)


def test_contents_that_are_as_they_were_written_pass(tmp_path: Path) -> None:
    stored = publish(tmp_path / "made", _make)
    check_contents(stored, file_refs(stored.artifact))


def test_a_flipped_byte_is_named_with_what_to_do(tmp_path: Path) -> None:
    stored = publish(tmp_path / "made", _make)
    check_contents(stored, file_refs(stored.artifact))
    graph = tmp_path / "made/shared/unet.onnx"
    graph.write_bytes(b"a grapi")
    with raising(ArtifactError, "unet.onnx"):
        check_contents(stored, file_refs(stored.artifact))


def test_a_content_is_read_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    stored = publish(tmp_path / "made", _make)
    check_contents(stored, file_refs(stored.artifact))
    read = _content.cache_info().misses
    check_contents(stored, file_refs(stored.artifact))
    assert _content.cache_info().misses == read


@pytest.mark.parametrize(("name", "reason"), [("lost", "No such file or directory"), ("x" * 300, "File name too long")])
def test_a_folder_that_is_no_artifact_is_not_to_be_removed(name: str, reason: str, tmp_path: Path) -> None:
    with raising(ArtifactError, reason):
        read_manifest(tmp_path / name, CompiledBundle)
