"""Stores that fail, and processes that do: clear errors, nothing half there, and the next sender or fetcher puts it right."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from support.forked import Forked
from support.s3_server import S3Server
from support.sentences import raising, says
from support.shared_files import CONTENTS, digest_of_name, keys, tree, write_shared_bundle
from support.small_disk import on_small_disk

from quadbench.artifacts import Bundle, Variant
from quadbench.errors import ArtifactError, MissingDependencyError, NotStoredError, StorageError, UserError
from quadbench.farm.store import opening
from quadbench.farm.store.artifacts import fetch, send
from quadbench.farm.store.collection import collect
from quadbench.farm.store.objects import Store, object_key
from quadbench.farm.store.opening import STORE_VARIABLE, open_store, required_store
from quadbench.results.layout import Layout

ONE = digest_of_name("one")
SEND = """
import sys
import threading
import time
from pathlib import Path
from quadbench.farm.store.artifacts import read_any, send
from quadbench.farm.store.opening import open_store
send(read_any(Path(sys.argv[2])), open_store(sys.argv[1]))
"""
DYING = """
import os, signal
from quadbench.farm.store.objects import Store

class Dying:
    "A place whose user is killed after its fifth file."

    def __init__(self, place):
        self._place, self._left = place, 5

    def __getattr__(self, name):
        return getattr(self._place, name)

    def put(self, key, content):
        self._place.put(key, content)
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

"""
FETCH = """
import sys
import threading
import time
from pathlib import Path
from quadbench.artifacts import Bundle
from quadbench.farm.store.artifacts import fetch
from quadbench.farm.store.opening import open_store
from quadbench.results.layout import Layout
print(fetch(Bundle, sys.argv[3], Layout(Path(sys.argv[2])), open_store(sys.argv[1])).is_reused)
"""


def test_the_variable_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raising(UserError, "QUADBENCH_STORE="):
        required_store()
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    assert required_store().name == str(tmp_path)


@pytest.mark.parametrize("source", ["", "s3://bucket/lab"])
def test_a_store_says_which_package_it_needs(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, module, None)
    with raising(MissingDependencyError):
        open_store(source or tmp_path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("lab://bucket", ("lab://bucket", "s3://BUCKET/PREFIX")),
        ("http://127.0.0.1:1/store", ("s3://BUCKET/PREFIX",)),
        ("ftp://me:secret@127.0.0.1:1/lab", ("ftp://127.0.0.1:1/lab",)),
        ("simplecache::s3://bucket", ()),
        ("s3://", ("s3://BUCKET/PREFIX",)),
        ("s3://key:secret@bucket/lab", ("s3://BUCKET/PREFIX", "AWS_ACCESS_KEY_ID")),
        ("s3://bucket/lab?secret=secret", ()),
        ("s3://bucket/lab#secret", ()),
        ("az://me:secret@container/lab", ("az://BUCKET/PREFIX",)),
        ("s3://[bucket", ()),
        ("s3://bucket/../other", ("s3://BUCKET/PREFIX",)),
    ],
)
def test_a_url_of_no_store_is_refused_without_its_secrets(url: str, reason: tuple[str, ...]) -> None:
    with raising(UserError, *reason) as refusal:
        open_store(url)
    assert "secret" not in str(refusal.value)


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with raising(StorageError, "No such file"):
        open_store(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with raising(StorageError, "Not a directory"):
        open_store(tmp_path / "file")


def test_a_pipe_in_a_folder_is_not_waited_for_and_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    os.mkfifo(tmp_path / "store/store.json")
    with raising(UserError, "store.json"):
        open_store(tmp_path / "store")
    (tmp_path / "store/store.json").unlink()
    store = open_store(tmp_path / "store")
    bundle = write_shared_bundle(Layout(tmp_path / "here"))
    (key,) = (object_key(graph.file.sha256) for graph in bundle.artifact.graphs if graph.variant is Variant.SHARED)
    (tmp_path / "store" / key).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / key)
    send(bundle, store)
    assert fetch(Bundle, ONE, Layout(tmp_path / "there"), store).artifact == bundle.artifact


def test_ctrl_c_within_a_large_file_ends_it_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(2**34)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    start_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.place.put(object_key("0" * 64), tmp_path / "large")
    assert time.monotonic() - start_s < 30
    assert (keys(store, ""), store.place.cut_off()) == ([], [])


def test_a_folder_with_other_things_in_it_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "quadbench.sqlite").touch()
    with raising(UserError, "quadbench.sqlite"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["quadbench.sqlite"]


def test_a_store_of_a_newer_quadbench_is_refused(store: Store) -> None:
    store.place.put("store.json", b'{"schema_version": 2}')
    with raising(ArtifactError, "store.json", "schema_version", 2, 1):
        open_store(store.name)


def test_a_bucket_that_is_not_there_is_said_so(s3: S3Server) -> None:
    with raising(StorageError, "s3://nowhere/lab"):
        open_store("s3://nowhere/lab")


def test_a_bucket_without_rights_is_said_so(s3: S3Server, tmp_path: Path) -> None:
    url = s3.new_bucket()
    store = open_store(url)
    s3.deny(url, "s3:PutObject")
    with raising(StorageError, url):
        send(write_shared_bundle(Layout(tmp_path / "here")), store)


def test_credentials_that_are_missing_or_half_there_are_said_so(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3.new_bucket()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with raising(StorageError, url, "SecretAccessKey"):
        open_store(url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with raising(StorageError):
        open_store(url)


def test_an_endpoint_that_is_not_reached_or_does_not_answer_is_given_up(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with raising(StorageError, "Connection refused", f"{address}/bucket/lab/store.json"):
            open_store("s3://bucket/lab")
        listener.listen(8)  # the kernel takes connections, and nobody answers
        monkeypatch.setitem(opening._CLIENT, "read_timeout", "200ms")
        with raising(StorageError, f"{address}/"):
            open_store("s3://bucket/lab")


@pytest.mark.parametrize("url", ["gs://bucket/lab", "az://container/lab"])
def test_other_clouds_are_asked_and_fail_in_the_same_words(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aGVsbG8=")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1")
    with raising(StorageError, url):
        open_store(url)


def test_a_store_that_is_full_keeps_what_is_whole_and_says_so(tmp_path: Path) -> None:
    code = (
        "from quadbench.errors import StorageError\n"
        "from quadbench.farm.store.artifacts import send\n"
        "from quadbench.farm.store.opening import open_store\n"
        "from quadbench.results.layout import Layout\n"
        "from support.shared_files import keys, write_shared_bundle\n"
        "contents = {'profile.json': b'{}', 'float/unet.onnx': bytes(2**21)}\n"
        "store = open_store(disk)\n"
        "try:\n"
        "    send(write_shared_bundle(Layout(disk.parent / 'here'), contents=contents), store)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
        "print([listed['size'] for listed in store.place.listed('objects')], store.place.cut_off(), keys(store, 'artifacts'))\n"
    )
    said = on_small_disk(tmp_path / "disk", code)
    says(said, "/disk", "No space left on device", "quadbench store collect")
    assert said.endswith("[] [] []\n")


def test_a_host_whose_results_are_full_or_whose_store_is_read_only_says_which(tmp_path: Path) -> None:
    code = (
        "from quadbench.artifacts import Bundle\n"
        "from quadbench.errors import StorageError\n"
        "from quadbench.farm.store.artifacts import fetch, send\n"
        "from quadbench.farm.store.opening import open_store\n"
        "from quadbench.results.layout import Layout\n"
        "from support.shared_files import digest_of_name, tree, write_shared_bundle\n"
        "(folder := disk.parent / 'store').mkdir()\n"
        "contents = {'profile.json': b'{}', 'float/unet.onnx': bytes(2**21)}\n"
        "bundle = write_shared_bundle(Layout(disk.parent / 'here'), contents=contents)\n"
        "send(bundle, open_store(folder))\n"
        "try:\n"
        "    fetch(Bundle, digest_of_name('one'), Layout(disk), open_store(folder))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
        "print(sorted(tree(disk)))\n"
        "(disk / 'bundles').rmdir()\n"
        "seal()\n"
        "try:\n"
        "    send(bundle, open_store(disk))\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    full, left, sealed = on_small_disk(tmp_path / "disk", code).splitlines()
    says(full)
    assert left == "[]"
    assert "the store '" in sealed
    says(sealed)
    assert "Read-only file system" in sealed


def test_processes_that_fetch_at_once_fetch_once(store: Store, tmp_path: Path) -> None:
    bundle = write_shared_bundle(Layout(tmp_path / "here"), contents={**CONTENTS, "float/large.onnx": bytes(2**22)})
    send(bundle, store)
    processes = [Forked(FETCH, store.name, tmp_path / "there", ONE) for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert sorted(said for said, _ in outputs) == ["False\n", "True\n", "True\n"], outputs
    assert tree(tmp_path / "there") == {f"bundles/{ONE[:16]}/{path}": text for path, text in tree(bundle.folder).items()}


def test_a_sender_that_is_killed_leaves_nothing_to_be_fetched_and_the_next_goes_on(store: Store, tmp_path: Path) -> None:
    contents = {"profile.json": b"{}", **{f"float/{number}.onnx": bytes([number]) for number in range(9)}}
    bundle = write_shared_bundle(Layout(tmp_path / "here"), contents=contents)
    sender = Forked(
        DYING + SEND.replace("open_store(sys.argv[1])", "Store(Dying(open_store(sys.argv[1]).place))"), store.name, bundle.folder
    )
    sender.communicate()
    assert sender.returncode == -signal.SIGKILL
    assert len(keys(store)) == 4
    with raising(NotStoredError, ONE):
        fetch(Bundle, ONE, Layout(tmp_path / "there"), store)
    sent = send(bundle, store)
    assert sent.files == len(contents) + 1 - 4
    assert fetch(Bundle, ONE, Layout(tmp_path / "there"), store).artifact == bundle.artifact


def test_a_sender_that_is_killed_within_a_file_leaves_no_object_and_collection_takes_the_rest(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = open_store(tmp_path / "store")
    bundle = write_shared_bundle(Layout(tmp_path / "here"), contents={"profile.json": b"{}", "float/unet.onnx": bytes(2**22)})
    killed_by_the_kernel = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
    )
    sender = Forked(killed_by_the_kernel + SEND, store.name, bundle.folder)
    sender.communicate()
    assert sender.returncode == -signal.SIGXFSZ
    assert [listed["size"] for listed in store.place.cut_off()] == [2**20]
    assert all(listed["size"] == 2 for listed in store.place.listed("objects"))
    assert send(bundle, store).files >= 2
    assert len(collect(store, 0, keep=[ONE], is_dry_run=True, grace_s=0).removed) == 1
    assert collect(store, 0, keep=[ONE]).removed == ()
    assert len(collect(store, 0, keep=[ONE], grace_s=0).removed) == 1
    assert store.place.cut_off() == []
    assert fetch(Bundle, ONE, Layout(tmp_path / "there"), store).artifact == bundle.artifact


@pytest.mark.parametrize("content", ["", "garbage", "[]"])
def test_a_damaged_marker_says_what_to_write_into_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(ArtifactError) as refused:
        open_store(tmp_path)
    assert refused.value.hint
    (tmp_path / "store.json").write_text(refused.value.hint.partition("write ")[2].removesuffix(" into it"))
    open_store(tmp_path)
