"""A store over time: launches that travel, what collection takes and spares, and the commands for it."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.sentences import raising, reads, says
from support.shared_files import CONTENTS, DAY_S, digest_of_name, flip, keys, tree, write_launch, write_shared_bundle

from quadbench.artifacts import Bundle, FileRef
from quadbench.cli import main
from quadbench.errors import ArtifactError, NotStoredError, UserError
from quadbench.farm.store.artifacts import fetch, is_stored, send
from quadbench.farm.store.collection import collect
from quadbench.farm.store.launches import fetch_run, send_launch
from quadbench.farm.store.objects import CONDEMNED, Condemned, LaunchEntry, Store, object_key
from quadbench.farm.store.opening import STORE_VARIABLE, open_store
from quadbench.results.layout import Layout

ONE, TWO = digest_of_name("one"), digest_of_name("two")
LAUNCH = "runs/run-a/virtual-s25/shared-0"
FILE = FileRef(path="images/restyle/000.png", sha256="0" * 64, size_bytes=1)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_store(tmp_path / "store")


def age(store: Store, days: float) -> None:
    """Let all that lies in a store in a folder, and what is condemned there, become older."""
    moment = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    for path in Path(store.name).rglob("*"):
        if path.is_file():
            os.utime(path, (moment, min(moment, path.stat().st_mtime)))
    condemned = store.condemned()
    if condemned:
        store.write(CONDEMNED, Condemned(keys={key: since - timedelta(days=days) for key, since in condemned.items()}))


def test_the_files_of_launches_lie_at_the_same_paths_on_another_host(store: Store, here: Layout, there: Layout) -> None:
    records = [write_launch(here, launch=launch) for launch in range(2)]
    for record in records:
        send_launch(record, here, store)
    fetched = fetch_run("run-a", there, store)
    assert tree(there.root) == tree(here.root)
    assert (fetched.launches, fetched.files, fetched.refused) == (2, 6, ())
    assert there.file(records[1].images["restyle/000"]).read_bytes() == b"picture 1"
    assert fetch_run("run-a", there, store).files == 0


def test_a_launch_without_files_sends_nothing(store: Store, here: Layout) -> None:
    record = write_launch(here)
    assert send_launch(replace(record, launch=7), here, store).files == 0
    assert keys(store, "") == []


def test_a_run_that_was_not_sent_is_said_not_to_be_there(store: Store, there: Layout) -> None:
    with raising(NotStoredError, "run-b"):
        fetch_run("run-b", there, store)
    with raising(UserError):
        fetch_run("../x", there, store)


def test_a_damaged_launch_costs_no_other_and_half_a_file_here_is_replaced(store: Store, here: Layout, there: Layout) -> None:
    for launch in range(2):
        send_launch(write_launch(here, launch=launch), here, store)
    entry = store.document(f"{LAUNCH}.json", LaunchEntry)
    assert entry
    (picture,) = (file for file in entry.files if file.path.endswith(".png"))
    flip(store, object_key(picture.sha256))
    half = there.root / "runs/run-a/virtual-s25/shared-1/plan.json"
    half.parent.mkdir(parents=True)
    half.write_text("{")
    (refusal,) = fetch_run("run-a", there, store).refused
    assert refusal.startswith(f"'{LAUNCH}.json': object {picture.sha256}")
    assert half.read_text() == "{}"
    assert not (there.root / LAUNCH / picture.path).exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"files": [{"path": "../../x"}]}, ("../../x",)),
        ({"files": [{"path": "/etc/passwd"}]}, ("/etc/passwd",)),
        ({"files": [{"path": ".hidden"}]}, (".hidden",)),
        ({"files": [{"sha256": "../x"}]}, ("sha256",)),
        ({"files": [{"size_bytes": 2**30}]}, (1073741824, 268435456)),
        ({"files": [{"size_bytes": -1}]}, ("-1",)),
        ({"files": [{}, {"path": "images"}]}, ("images",)),
        ({"files": [{"path": str(number)} for number in range(10_001)]}, (10001, 10000)),
        ({"run_id": "run-b"}, ("run-b",)),
        ({"schema_version": 2}, ("schema_version", 2)),
        ({"files": 7}, ("Input should be a valid array",)),
    ],
)
def test_a_hostile_index_is_refused_and_writes_nothing(
    change: dict[str, object], reason: tuple[object, ...], store: Store, there: Layout
) -> None:
    plain = {"path": FILE.path, "sha256": FILE.sha256, "size_bytes": FILE.size_bytes}
    if isinstance(files := change.get("files"), list):
        change = {"files": [{**plain, **file} for file in files]}
    content = {"schema_version": 1, "run_id": "run-a", "files": [plain], **change}
    store.place.put(f"{LAUNCH}.json", json.dumps(content).encode())
    (refusal,) = fetch_run("run-a", there, store).refused
    says(refusal, *reason)
    assert tree(there.root) == {}


def test_an_index_that_turns_a_file_here_into_a_folder_costs_no_other(store: Store, here: Layout, there: Layout) -> None:
    for launch in range(2):
        send_launch(write_launch(here, launch=launch), here, store)
    (there.root / LAUNCH).mkdir(parents=True)
    (there.root / LAUNCH / "images").write_text("a file")
    fetched = fetch_run("run-a", there, store)
    assert (fetched.launches, fetched.files) == (1, 3)
    says(fetched.refused[0], "cannot be written")


@pytest.mark.parametrize("name", ["x.json", "d/other-0.json", "d/shared-0/x.json", "d/shared-x.json", "d./shared-0.json"])
def test_an_index_under_a_key_of_no_launch_is_refused(name: str, store: Store, there: Layout) -> None:
    store.place.put(f"runs/run-a/{name}", b"{}")
    (refusal,) = fetch_run("run-a", there, store).refused
    reads(refusal, f"runs/run-a/{name}")


def test_what_is_old_goes_a_day_after_it_was_condemned(folder_store: Store, here: Layout, there: Layout) -> None:
    send(write_shared_bundle(here), folder_store)
    send_launch(write_launch(here), here, folder_store)
    age(folder_store, 100)
    send(write_shared_bundle(here, "two", {**CONTENTS, "float/unet.onnx": b"new"}), folder_store)
    first = collect(folder_store, 90 * DAY_S)
    assert [is_stored(Bundle, digest, folder_store) for digest in (ONE, TWO)] == [False, True]
    assert (first.removed, len(first.condemned)) == ((), 6)  # two entries, a manifest, a graph, two files of the launch
    assert collect(folder_store, 90 * DAY_S).removed == ()
    age(folder_store, 1.1)
    second = collect(folder_store, 90 * DAY_S)
    assert (sorted(second.removed), second.condemned) == (sorted(first.condemned), ())
    assert second.removed_bytes == first.condemned_bytes
    assert fetch(Bundle, TWO, there, folder_store)
    with pytest.raises(NotStoredError):
        fetch(Bundle, ONE, there, folder_store)


def test_what_is_named_stays_however_old_it_is(folder_store: Store, here: Layout) -> None:
    send(write_shared_bundle(here), folder_store)
    send_launch(write_launch(here), here, folder_store)
    age(folder_store, 100)
    assert collect(folder_store, DAY_S, keep=[ONE[:16], "run-a"]).condemned == ()


def test_a_dry_run_says_what_would_go_and_does_nothing(folder_store: Store, here: Layout) -> None:
    send(write_shared_bundle(here), folder_store)
    age(folder_store, 100)
    before = tree(Path(folder_store.name))
    dry = collect(folder_store, DAY_S, is_dry_run=True)
    assert len(dry.condemned) == len(CONTENTS) + 2
    assert dry.condemned_bytes > sum(map(len, CONTENTS.values()))
    assert tree(Path(folder_store.name)) == before
    collect(folder_store, DAY_S)
    age(folder_store, 2)
    before = tree(Path(folder_store.name))
    assert collect(folder_store, DAY_S, is_dry_run=True).removed == tuple(dry.condemned)
    assert tree(Path(folder_store.name)) == before


def test_a_sender_trusts_nothing_that_is_condemned_and_what_it_sends_is_spared(store: Store, here: Layout, there: Layout) -> None:
    bundle = write_shared_bundle(here)
    files = send(bundle, store).files
    collect(store, 0, grace_s=0)
    assert send(bundle, store).files == files
    assert collect(store, DAY_S, grace_s=0).removed == ()
    assert fetch(Bundle, ONE, there, store).artifact == bundle.artifact


def test_what_a_sender_that_began_before_relies_on_is_spared_once_it_has_ended(folder_store: Store, here: Layout) -> None:
    """Its objects were there and old, so it did not send them; they are condemned while it works."""
    bundle = write_shared_bundle(here)
    send(bundle, folder_store)
    entry = f"artifacts/bundle/{ONE}.json"
    content = tree(Path(folder_store.name))[entry]
    folder_store.place.remove(entry)
    age(folder_store, 3)
    assert len(collect(folder_store, DAY_S).condemned) == len(CONTENTS) + 1
    folder_store.place.put(entry, content)
    assert collect(folder_store, 90 * DAY_S, grace_s=0).removed == ()


def test_young_objects_that_nothing_names_yet_are_not_condemned(store: Store, here: Layout) -> None:
    send(write_shared_bundle(here), store)
    store.place.remove(f"artifacts/bundle/{ONE}.json")
    assert collect(store, 0).condemned == ()


def test_with_a_damaged_entry_nothing_is_removed(store: Store, here: Layout) -> None:
    send(write_shared_bundle(here), store)
    send(write_shared_bundle(here, "two"), store)
    store.place.put(f"artifacts/bundle/{ONE}.json", b'{"schema_version": 1}')
    before = keys(store, "")
    with raising(ArtifactError, f"artifacts/bundle/{ONE}.json", "Field required"):
        collect(store, DAY_S, grace_s=0)
    assert keys(store, "") == before


def test_the_commands_do_all_of_it(
    folder_store: Store, here: Layout, there: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(STORE_VARIABLE, folder_store.name)

    def said(*words: str) -> str:
        assert main(["store", *words]) == 0
        return capsys.readouterr().out

    folder = write_shared_bundle(here).folder
    reads(said("status"), folder_store.name, 0, "0.0")
    says(said("send", str(folder)), ONE, 4)
    assert json.loads(said("send", str(folder), "--json"))[0]["files"] == 0
    assert json.loads(said("status", "--json"))["artifacts"] == {"bundle": 1}
    reads(said("fetch", ONE[:16], "--results", str(there.root)), ONE, there.bundle(ONE))
    assert json.loads(said("fetch", ONE, "--results", str(there.root), "--json"))["is_reused"]
    says(said("collect", "--keep", "90d", "--dry-run"), 0, "0.0")
    assert json.loads(said("collect", "--keep", "90d", "--json"))["removed"] == []


def test_the_commands_fail_with_clear_words(
    store: Store, here: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["store", "status"]) == UserError.exit_code
    says(capsys.readouterr().err, "no store is named")
    monkeypatch.setenv(STORE_VARIABLE, store.name)
    bundle = write_shared_bundle(here)
    send(bundle, store)
    flip(store, object_key(bundle.artifact.profile.sha256))
    assert main(["store", "fetch", ONE, "--results", str(tmp_path / "there")]) == ArtifactError.exit_code
    says(capsys.readouterr().err, bundle.artifact.profile.sha256)
    assert main(["store", "fetch", "x"]) == NotStoredError.exit_code
    assert main(["store", "send", str(tmp_path / "nowhere")]) == ArtifactError.exit_code
    says(capsys.readouterr().err, "nowhere")
