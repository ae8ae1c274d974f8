"""The store: what one host sends another fetches, whole and checked, from a folder and from S3; anything else is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.kit_files import write_runtime
from support.sentences import raising
from support.shared_files import CONTENTS, digest_of_name, flip, keys, tree, write_shared_bundle

from quadbench.artifacts import Bundle, CompiledBundle
from quadbench.artifacts.kit import Kit
from quadbench.errors import ArtifactError, NotStoredError, UserError
from quadbench.farm.store import artifacts
from quadbench.farm.store.artifacts import fetch, named, send
from quadbench.farm.store.objects import ArtifactEntry, Store, artifact_key, object_key
from quadbench.kits import store as kits
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref, publish
from quadbench.target.abi import Abi

ONE = digest_of_name("one")


def entry(store: Store, digest: str = ONE) -> ArtifactEntry:
    stored = store.document(artifact_key("bundle", digest), ArtifactEntry)
    assert stored
    return stored


def put_manifest(store: Store, tmp_path: Path, content: bytes, digest: str = ONE) -> None:
    """Name a manifest of any content as that of a bundle."""
    (path := tmp_path / "manifest.json").write_bytes(content)
    manifest = file_ref(tmp_path, path)
    store.place.put(object_key(manifest.sha256), path)
    store.write(artifact_key("bundle", digest), ArtifactEntry(kind="bundle", digest=digest, manifest=manifest))


def test_a_bundle_arrives_as_it_was_sent(store: Store, here: Layout, there: Layout) -> None:
    bundle = write_shared_bundle(here)
    sent = send(bundle, store)
    fetched = fetch(Bundle, ONE, there, store)
    assert (fetched.artifact, fetched.folder, fetched.is_reused) == (bundle.artifact, there.bundle(ONE), False)
    assert tree(fetched.folder) == tree(bundle.folder)
    assert sent.sent_bytes == sum(map(len, CONTENTS.values())) + (bundle.folder / "manifest.json").stat().st_size
    assert [path.name for path in there.root.rglob(".*")] == []


def test_a_compiled_bundle_and_a_kit_arrive_too(store: Store, here: Layout, there: Layout, tmp_path: Path) -> None:
    compiled = CompiledBundle(digest=ONE, parent_digest="p", target="onnxruntime", tool_versions={}, graphs=())
    send(publish(here.compiled_bundle(ONE), lambda _: compiled), store)
    kit = kits.add_kit([write_runtime(tmp_path / "files")], Abi.ARM64_V8A, here).kit
    send(kit, store)
    assert fetch(CompiledBundle, ONE, there, store).artifact == compiled
    assert fetch(Kit, kit.artifact.digest, there, store).artifact == kit.artifact
    assert kits.find_kit(kit.artifact.digest, there).artifact == kit.artifact
    assert {kind for kind, _ in artifacts.artifacts(store)} == {"compiled-bundle", "kit"}


def test_what_is_there_is_not_sent_again(store: Store, here: Layout) -> None:
    sent = send(write_shared_bundle(here), store)
    again = send(write_shared_bundle(here), store)
    other = send(write_shared_bundle(here, "two", {**CONTENTS, "float/unet.onnx": b"new"}), store)
    assert (again.files, again.sent_bytes, again.present_bytes) == (0, 0, sent.sent_bytes)
    assert other.files == 2  # the new graph and the manifest
    assert len(keys(store)) == len(CONTENTS) + 3


def test_objects_lie_under_names_that_come_of_their_contents_alone(store: Store, here: Layout) -> None:
    bundle = write_shared_bundle(here)
    send(bundle, store)
    files = [*bundle.artifact.graphs, bundle.artifact.profile]
    refs = {getattr(file, "file", file).sha256 for file in files} | {entry(store).manifest.sha256}
    assert keys(store) == sorted(object_key(sha256) for sha256 in refs)
    assert keys(store, "artifacts") == [f"artifacts/bundle/{ONE}.json"]


def test_one_that_is_here_whole_is_not_fetched_and_a_damaged_one_is(store: Store, here: Layout, there: Layout) -> None:
    send(write_shared_bundle(here), store)
    folder = fetch(Bundle, ONE, there, store).folder
    place = folder.stat().st_ino
    assert fetch(Bundle, ONE, there, store).is_reused
    assert folder.stat().st_ino == place
    (folder / "shared/unet.onnx").write_bytes(b"b graph" * 1000)
    assert not fetch(Bundle, ONE, there, store).is_reused
    assert tree(folder) == tree(here.bundle(ONE))


def test_files_that_another_artifact_here_has_are_not_fetched(store: Store, here: Layout, there: Layout) -> None:
    send(write_shared_bundle(here), store)
    send(write_shared_bundle(here, "two"), store)
    fetch(Bundle, ONE, there, store)
    for key in keys(store):
        if key != object_key(entry(store, digest_of_name("two")).manifest.sha256):
            store.place.remove(key)
    fetch(Bundle, digest_of_name("two"), there, store)
    assert tree(there.bundle(digest_of_name("two"))).items() >= CONTENTS.items()


def test_a_flipped_byte_is_refused_by_name_and_nothing_is_left(store: Store, here: Layout, there: Layout) -> None:
    bundle = write_shared_bundle(here)
    send(bundle, store)
    flip(store, object_key(bundle.artifact.graphs[0].file.sha256))
    with raising(ArtifactError, bundle.artifact.graphs[0].file.sha256, "unet.onnx"):
        fetch(Bundle, ONE, there, store)
    assert list(tree(there.root)) == []


@pytest.mark.parametrize("content", [b"", b"a graph", b"a graph" * 1001])
def test_an_object_of_another_size_is_refused_and_replaced_by_the_next_sender(
    content: bytes, store: Store, here: Layout, there: Layout
) -> None:
    bundle = write_shared_bundle(here)
    send(bundle, store)
    key = object_key(bundle.artifact.graphs[0].file.sha256)
    store.place.put(key, content)
    with raising(ArtifactError, len(content), 7000):
        fetch(Bundle, ONE, there, store)
    assert send(bundle, store).files == 1
    assert fetch(Bundle, ONE, there, store).artifact == bundle.artifact


def test_a_file_that_was_changed_here_is_not_sent(store: Store, here: Layout) -> None:
    bundle = write_shared_bundle(here)
    bundle.path(bundle.artifact.profile).write_bytes(b"[]")
    with raising(ArtifactError, "profile.json"):
        send(bundle, store)
    assert keys(store, "") == []


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"kind": []}', '{"kind": "cake"}'])
def test_a_folder_of_no_kind_of_artifact_is_refused_and_keeps_no_other_from_being_fetched(
    manifest: str, store: Store, here: Layout, there: Layout
) -> None:
    send(write_shared_bundle(here), store)
    (damaged := there.bundle("0" * 64)).mkdir(parents=True)
    (damaged / "manifest.json").write_text(manifest)
    with raising(ArtifactError, str(damaged), snapshot=False):
        artifacts.read_any(damaged)
    assert fetch(Bundle, ONE, there, store).artifact.digest == ONE


def test_what_was_not_sent_is_said_not_to_be_there(store: Store, here: Layout, there: Layout) -> None:
    with raising(NotStoredError, ONE):
        fetch(Bundle, ONE, there, store)
    bundle = write_shared_bundle(here)
    send(bundle, store)
    store.place.remove(object_key(bundle.artifact.profile.sha256))
    with raising(NotStoredError, "profile.json"):
        fetch(Bundle, ONE, there, store)


@pytest.mark.parametrize("digest", ["../../x", "", "ABC", "0" * 63])
def test_a_digest_that_is_none_is_no_path(digest: str, store: Store, there: Layout) -> None:
    with raising(ArtifactError):
        fetch(Bundle, digest, there, store)


def test_an_artifact_is_found_by_the_beginning_of_its_digest(store: Store, here: Layout) -> None:
    send(write_shared_bundle(here), store)
    assert named(ONE[:8], store) == ("bundle", ONE)
    with raising(NotStoredError, "x"):
        named("x", store)
    store.place.put(artifact_key("kit", ONE), b"{}")
    with raising(UserError, ONE[:8], ONE):
        named(ONE[:8], store)


def test_a_manifest_of_another_digest_is_refused(store: Store, here: Layout, there: Layout) -> None:
    send(write_shared_bundle(here), store)
    other = digest_of_name("two")
    store.write(artifact_key("bundle", other), replace(entry(store), digest=other))
    with raising(ArtifactError, other, "bundle", ONE[:50]):
        fetch(Bundle, other, there, store)
    store.write(artifact_key("bundle", other), entry(store))
    with raising(ArtifactError, other, "bundle", ONE[:50]):
        fetch(Bundle, other, there, store)


@pytest.mark.parametrize(
    "path",
    [
        "../../x",
        "/etc/passwd",
        "manifest.json",
        "shared/unet.onnx/x",
        "float/unet.onnx",
    ],
)
def test_a_manifest_with_a_hostile_path_is_refused(path: str, store: Store, here: Layout, there: Layout, tmp_path: Path) -> None:
    manifest = json.loads((write_shared_bundle(here).folder / "manifest.json").read_text())
    manifest["profile"]["path"] = path
    put_manifest(store, tmp_path, json.dumps(manifest).encode())
    with raising(ArtifactError):
        fetch(Bundle, ONE, there, store)
    assert list(tree(there.root)) == []


@pytest.mark.parametrize("size_bytes", [-1, 2**60])
def test_a_size_that_no_file_has_is_refused(size_bytes: int, store: Store, here: Layout, there: Layout, tmp_path: Path) -> None:
    manifest = json.loads((write_shared_bundle(here).folder / "manifest.json").read_text())
    manifest["profile"]["size_bytes"] = size_bytes
    put_manifest(store, tmp_path, json.dumps(manifest).encode())
    with raising(ArtifactError, size_bytes, 0):
        fetch(Bundle, ONE, there, store)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b" " * 1_000_000, ()),
        (b"[" * 1_000_000, ()),
        (b" " * 2**24 + b" ", (16777217, 16777216)),
        (b'{"schema_version": 2}', ("schema_version", 2, 1)),
        (b'{"schema_version": 1, "digest": NaN}', ()),
    ],
    ids=["blank", "nested", "too large", "newer", "nan"],
)
def test_a_manifest_that_is_none_is_refused(
    content: bytes, reason: tuple[object, ...], store: Store, there: Layout, tmp_path: Path
) -> None:
    put_manifest(store, tmp_path, content)
    with raising(ArtifactError, *reason):
        fetch(Bundle, ONE, there, store)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{}", "schema_version"), (b'{"schema_version": 1}', "Field required"), (b"x" * (2**24 + 1), 16777217), (b"\xff", "")],
    ids=["empty", "no fields", "too large", "no text"],
)
def test_an_entry_that_is_none_is_refused(content: bytes, reason: object, store: Store, there: Layout) -> None:
    store.place.put(artifact_key("bundle", ONE), content)
    with raising(ArtifactError, reason):
        fetch(Bundle, ONE, there, store)
