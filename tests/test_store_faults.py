"""Stores that fail, and processes that do: clear errors, nothing half there, and the next sender or fetcher puts it right."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.s3_server import S3Server
from support.shared_files import CONTENTS, digest_of_name, keys, tree, write_shared_bundle
from support.small_disk import on_small_disk

from quadbench.artifacts import Bundle
from quadbench.errors import ArtifactError, MissingDependencyError, NotStoredError, StorageError, UserError
from quadbench.farm.store import remote
from quadbench.farm.store.artifacts import fetch, send
from quadbench.farm.store.collection import collect
from quadbench.farm.store.objects import Store
from quadbench.farm.store.opening import STORE_VARIABLE, open_store, required_store, store_of
from quadbench.results.layout import Layout

TESTS = Path(__file__).parent
ONE = digest_of_name("one")
SEND = """
import sys
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
from pathlib import Path
from quadbench.artifacts import Bundle
from quadbench.farm.store.artifacts import fetch
from quadbench.farm.store.opening import open_store
from quadbench.results.layout import Layout
print(fetch(Bundle, sys.argv[3], Layout(Path(sys.argv[2])), open_store(sys.argv[1])).is_reused)
"""


def start(code: str, *arguments: str | Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_variable_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_of() is None
    with pytest.raises(UserError, match=r"no store is named.*export QUADBENCH_STORE="):
        required_store()
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    assert store_of() == str(tmp_path)
    assert required_store().name == str(tmp_path)


def test_a_folder_needs_no_package_and_a_bucket_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    (tmp_path / "store").mkdir()
    send(write_shared_bundle(Layout(tmp_path / "here")), open_store(f"file://{tmp_path}/store"))
    with pytest.raises(MissingDependencyError, match=r"needs the package 'fsspec'.*quadbench\[farm\]"):
        open_store("s3://bucket/lab")


def test_a_protocol_whose_package_is_missing_is_said_to_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = pytest.importorskip("fsspec.registry")
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match=r"'s3://bucket/lab' needs a package.*quadbench\[farm\]"):
        open_store("s3://bucket/lab")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("lab://bucket", "has an unknown protocol; expected a folder, s3://BUCKET/PREFIX .*, found 'lab'"),
        ("simplecache::s3://bucket", "has no protocol of one place"),
        ("s3://", "has more, or less, than s3://BUCKET/PREFIX"),
        ("s3://key:secret@bucket/lab", "has more, or less, than s3://BUCKET/PREFIX.*AWS_ACCESS_KEY_ID"),
        ("s3://bucket/lab?secret=secret", "has more, or less, than"),
        ("s3://[bucket", "cannot be read"),
    ],
)
def test_a_url_of_no_store_is_refused_without_its_secrets(url: str, reason: str) -> None:
    pytest.importorskip("s3fs")
    with pytest.raises(UserError, match=reason) as refusal:
        open_store(url)
    assert "secret" not in str(refusal.value)


def test_what_a_library_says_is_passed_on_without_the_secrets_of_the_url() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(StorageError, match=r"the store 'ftp://127\.0\.0\.1:1/lab' cannot be used") as refusal:
        open_store("ftp://me:secret@127.0.0.1:1/lab")
    assert "secret" not in str(refusal.value)


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere' cannot be used: No such file.*Hint: make it, or mount it"):
        open_store(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used: Not a directory"):
        open_store(tmp_path / "file")


def test_a_folder_with_other_things_in_it_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "quadbench.sqlite").touch()
    with pytest.raises(UserError, match=r"is no store, as it has no \S+ and holds 'quadbench.sqlite'"):
        open_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["quadbench.sqlite"]


def test_a_place_that_only_reads_is_no_store() -> None:
    with pytest.raises(UserError, match="cannot be reached by HTTP, which only reads"):
        open_store("http://127.0.0.1:1/store")


def test_a_store_of_a_newer_quadbench_is_refused(store: Store) -> None:
    store.place.put("store.json", b'{"schema_version": 2}')
    with pytest.raises(ArtifactError, match=r"'store\.json' in the store .* has schema_version 2; expected 1"):
        open_store(store.name)


def test_a_bucket_that_is_not_there_is_said_so(s3: S3Server) -> None:
    with pytest.raises(StorageError, match=r"the store 's3://nowhere/lab' cannot be used: The specified bucket does not exist"):
        open_store("s3://nowhere/lab")


def test_a_bucket_without_rights_is_said_so(s3: S3Server, tmp_path: Path) -> None:
    url = s3.new_bucket()
    store = open_store(url)
    s3.deny(url, "s3:PutObject")
    with pytest.raises(StorageError, match=rf"the store '{url}' cannot be used: .*(Denied|Forbidden)"):
        send(write_shared_bundle(Layout(tmp_path / "here")), store)


def test_credentials_that_are_missing_are_said_so(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3.new_bucket()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="Unable to locate credentials"):
        open_store(url)


def test_an_endpoint_that_is_not_reached_or_does_not_answer_is_given_up(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(StorageError, match="Could not connect to the endpoint URL"):
            open_store("s3://bucket/lab")
        listener.listen(8)  # the kernel takes connections, and nobody answers
        monkeypatch.setitem(remote._S3_OPTIONS["config_kwargs"], "read_timeout", 0.2)
        with pytest.raises(StorageError, match="Read timeout on endpoint URL"):
            open_store("s3://bucket/lab")


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
        "print([size.size_bytes for size in store.place.listed('objects')], keys(store, 'incoming'), keys(store, 'artifacts'))\n"
    )
    said = on_small_disk(tmp_path / "disk", code)
    assert "/disk' cannot be used: No space left on device" in said
    assert "Hint: make room there; quadbench store collect" in said
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
    assert "the file system of" in full
    assert left == "[]"
    assert "the store '" in sealed
    assert "cannot be used: Read-only file system" in sealed


def test_processes_that_fetch_at_once_fetch_once(store: Store, tmp_path: Path) -> None:
    bundle = write_shared_bundle(Layout(tmp_path / "here"), contents={**CONTENTS, "float/large.onnx": bytes(2**22)})
    send(bundle, store)
    processes = [start(FETCH, store.name, tmp_path / "there", ONE) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert sorted(said for said, _ in outputs) == ["False\n", "True\n", "True\n"], outputs
    assert tree(tmp_path / "there") == {f"bundles/{ONE[:16]}/{path}": text for path, text in tree(bundle.folder).items()}


def test_a_sender_that_is_killed_leaves_nothing_to_be_fetched_and_the_next_goes_on(store: Store, tmp_path: Path) -> None:
    contents = {"profile.json": b"{}", **{f"float/{number}.onnx": bytes([number]) for number in range(9)}}
    bundle = write_shared_bundle(Layout(tmp_path / "here"), contents=contents)
    sender = start(
        DYING + SEND.replace("open_store(sys.argv[1])", "Store(Dying(open_store(sys.argv[1]).place))"), store.name, bundle.folder
    )
    sender.communicate()
    assert sender.returncode == -signal.SIGKILL
    assert len(keys(store)) == 4
    with pytest.raises(NotStoredError, match=f"has no bundle {ONE}"):
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
    sender = start(killed_by_the_kernel + SEND, store.name, bundle.folder)
    sender.communicate()
    assert sender.returncode == -signal.SIGXFSZ
    assert [listed.size_bytes for listed in store.place.listed("incoming")] == [2**20]
    assert all(listed.size_bytes == 2 for listed in store.place.listed("objects"))
    assert send(bundle, store).files >= 2
    collect(store, 0, keep=[ONE], grace_s=0)
    collect(store, 0, keep=[ONE], grace_s=0)
    assert keys(store, "incoming") == []
    assert fetch(Bundle, ONE, Layout(tmp_path / "there"), store).artifact == bundle.artifact
