"""Deployments: the files that are sent, those that are not, and what remains after a failure."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.sentences import raising, says

from quadbench.deploy import LocalFile, _push_all, deploy
from quadbench.devices import Device, adb_commands
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.errors import ArtifactError, DeviceError, DeviceFullError, DeviceLostError
from quadbench.results.layout import Layout

MIB = 2**20


@pytest.fixture(scope="module", params=["local", "virtual:s25"])
def connected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with connect(parse_addresses([request.param]), layout=Layout(tmp_path_factory.mktemp("results"))) as (device,):
        yield device


@pytest.fixture
def device(connected: Device) -> Device:
    """A device on which nothing has been deployed yet."""
    assert connected.shell(["rm", "-rf", f"{connected.root}/objects"], 10).exit_code == 0
    return connected


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[Device]:
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "results")) as (connected,):
        yield connected


def local_file(folder: Path, name: str, content: bytes, *, executable: bool = False) -> LocalFile:
    path = folder / name
    path.write_bytes(content)
    return LocalFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), executable=executable)


def objects_on(device: Device) -> dict[str, int]:
    """Return the size of everything in the objects folder by name, temporary files too."""
    lines = device.shell(["sh", "-c", f"cd '{device.root}/objects' && stat -c '%s %n' $(ls -A)"], 20).stdout.splitlines()
    return {line.split()[1]: int(line.split()[0]) for line in lines}


def test_files_lie_under_their_digest_and_the_deployment_says_where(device: Device, tmp_path: Path) -> None:
    files = [local_file(tmp_path, "one", b"content of one"), local_file(tmp_path, "empty", b"")]
    deployment = deploy(files, device)
    assert objects_on(device) == {file.sha256: file.size_bytes for file in files}
    assert deployment.objects == {file.sha256: f"{device.root}/objects/{file.sha256}" for file in files}
    assert device.shell(["cat", deployment.objects[files[0].sha256]], 10).stdout == "content of one"
    assert (deployment.device, deployment.root) == (device.facts, device.root)
    assert (deployment.sent_bytes, deployment.present_bytes) == (14, 0)


def test_deploying_again_sends_nothing(device: Device, tmp_path: Path) -> None:
    files = [local_file(tmp_path, "one", b"1" * 1000), local_file(tmp_path, "two", b"2" * 500)]
    deploy(files, device)
    again = deploy(files, device)
    assert (again.sent_bytes, again.present_bytes) == (0, 1500)


def test_a_further_file_sends_only_its_own_bytes(device: Device, tmp_path: Path) -> None:
    files = [local_file(tmp_path, "one", b"1" * 1000), local_file(tmp_path, "two", b"2" * 500)]
    deploy(files, device)
    further = deploy([*files, local_file(tmp_path, "three", b"3" * 70)], device)
    assert (further.sent_bytes, further.present_bytes) == (70, 1500)


def test_nothing_is_sent_again_after_the_device_was_disconnected(tmp_path: Path) -> None:
    files = [local_file(tmp_path, "one", b"1" * 1000)]
    sent = []
    for _ in range(2):
        with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "results")) as (device,):
            sent.append(deploy(files, device).sent_bytes)
    assert sent == [1000, 0]


def test_the_same_content_under_two_names_is_sent_once(device: Device, tmp_path: Path) -> None:
    files = [local_file(tmp_path, "one", b"same"), local_file(tmp_path, "two", b"same", executable=True)]
    deployment = deploy(files, device)
    assert (deployment.sent_bytes, deployment.present_bytes) == (4, 0)
    assert device.shell(["test", "-x", deployment.objects[files[0].sha256]], 10).exit_code == 0


def test_programs_can_be_run_and_data_cannot(device: Device, tmp_path: Path) -> None:
    program = local_file(tmp_path, "program", b"#!/bin/sh\necho it runs\n", executable=True)
    data = local_file(tmp_path, "data", b"data")
    objects = deploy([program, data], device).objects
    assert device.shell([objects[program.sha256]], 10).stdout == "it runs\n"
    assert device.shell(["test", "-x", objects[data.sha256]], 10).exit_code == 1


def test_a_program_that_is_there_but_cannot_be_run_is_made_executable(virtual: Device, tmp_path: Path) -> None:
    program = local_file(tmp_path, "program", b"#!/bin/sh\n", executable=True)
    path = deploy([program], virtual).objects[program.sha256]
    virtual.shell(["chmod", "644", path], 10)
    assert deploy([program], virtual).sent_bytes == 0
    assert virtual.shell(["test", "-x", path], 10).exit_code == 0


def test_an_object_of_the_wrong_size_is_sent_again(device: Device, tmp_path: Path) -> None:
    file = local_file(tmp_path, "one", b"whole content")
    path = deploy([file], device).objects[file.sha256]
    device.shell(["sh", "-c", f"echo cut > '{path}'"], 10)
    assert deploy([file], device).sent_bytes == file.size_bytes
    assert device.shell(["cat", path], 10).stdout == "whole content"


def test_an_object_of_the_right_size_but_another_content_is_sent_again(
    device: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, whole = local_file(tmp_path, "one", b"whole content"), local_file(tmp_path, "two", b"another")
    path = deploy([damaged, whole], device).objects[damaged.sha256]
    device.shell(["sh", "-c", f"printf 'whole_content' > '{path}'"], 10)
    again = deploy([damaged, whole], device)
    assert (again.sent_bytes, again.present_bytes) == (damaged.size_bytes, whole.size_bytes)
    assert device.shell(["cat", path], 10).stdout == "whole content"
    says(caplog.text, device.facts.address)


@pytest.mark.parametrize("kind", ["mkdir -p {}/deeper", "ln -s /proc/version {}", "mkfifo {}"])
def test_what_is_no_file_in_an_objects_place_gives_way_to_it(
    kind: str, device: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = local_file(tmp_path, "one", b"content")
    place = f"{device.root}/objects/{file.sha256}"
    assert device.shell(["sh", "-c", f"mkdir -p {device.root}/objects && {kind.format(place)}"], 10).exit_code == 0
    assert deploy([file], device).sent_bytes == file.size_bytes
    assert objects_on(device) == {file.sha256: file.size_bytes}
    says(caplog.text, place, device.facts.address)


def test_progress_counts_the_bytes_of_all_files_that_are_sent(device: Device, tmp_path: Path) -> None:
    deploy([local_file(tmp_path, "there", b"0" * 100)], device)
    reports: list[tuple[int, int]] = []
    files = [local_file(tmp_path, name, name.encode() * MIB) for name in ("a", "b")]
    deploy(
        [local_file(tmp_path, "there", b"0" * 100), *files], device, progress=lambda sent, total: reports.append((sent, total))
    )
    assert {total for _, total in reports} == {2 * MIB}
    assert [sent for sent, _ in reports] == sorted(sent for sent, _ in reports)
    assert reports[-1] == (2 * MIB, 2 * MIB)


def test_objects_that_nobody_needs_stay(device: Device, tmp_path: Path) -> None:
    old, new = (local_file(tmp_path, name, name.encode() * 10) for name in ("old", "new"))
    deploy([old], device)
    assert deploy([new], device).sent_bytes == len(new.path.read_bytes())
    assert set(objects_on(device)) == {old.sha256, new.sha256}


def test_a_file_that_changed_since_its_manifest_is_refused_and_leaves_nothing(device: Device, tmp_path: Path) -> None:
    file = local_file(tmp_path, "graph.onnx", b"as built")
    file.path.write_bytes(b"modified")
    with raising(ArtifactError, "graph.onnx", "sha256", file.sha256):
        deploy([file], device)
    assert objects_on(device) == {}


def test_a_file_of_another_size_is_refused_before_anything_is_sent(device: Device, tmp_path: Path) -> None:
    file = local_file(tmp_path, "graph.onnx", b"as built")
    file.path.write_bytes(b"longer than it was")
    with raising(ArtifactError, 18, 8):
        deploy([file], device)
    file.path.unlink()
    with raising(ArtifactError, "graph.onnx"):
        deploy([file], device)


def test_a_full_device_says_what_it_has_and_what_is_needed(tmp_path: Path) -> None:
    big = local_file(tmp_path, "big", bytes(6 * MIB))
    small = local_file(tmp_path, "small", b"s" * MIB)
    with connect(parse_addresses(["virtual:s25?data_mb=4"]), layout=Layout(tmp_path / "results")) as (device,):
        deploy([small], device)
        with raising(DeviceFullError, "3.0", "6.0", "/data/local/tmp/quadbench"):
            deploy([big], device)
        assert set(objects_on(device)) == {small.sha256}


def test_a_device_that_fills_up_while_it_is_sent_to_keeps_nothing_half_written(tmp_path: Path) -> None:
    files = [local_file(tmp_path, name, name.encode() * MIB) for name in ("a", "b", "c")]

    with connect(parse_addresses(["virtual:s25?data_mb=4"]), layout=Layout(tmp_path / "results")) as (device,):

        def fill(sent: int, _total: int) -> None:
            if MIB <= sent < 1.25 * MIB:
                device.shell(["sh", "-c", "cat /dev/zero > /data/other; true"], 30)

        with raising(DeviceFullError, "No space left"):
            deploy(files, device, progress=fill)
        assert objects_on(device) == {}


def test_a_device_that_is_unplugged_for_good_while_it_is_sent_to_is_lost_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_commands, "RECONNECT_S", 0.2)
    whole = local_file(tmp_path, "whole", os.urandom(MIB))
    cut = local_file(tmp_path, "cut.onnx", os.urandom(16 * MIB))
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "results")) as (device,):
        daemon = device.shell(["pidof", "adbd"], 10).stdout.strip()

        def unplug(sent: int, _total: int) -> None:
            if 4 * MIB < sent < 5 * MIB:
                with pytest.raises(DeviceLostError):
                    device.shell(["sh", "-c", f"kill -KILL {daemon}; sleep 10"], 10)

        with raising(DeviceLostError, "virtual:s25", "17.0", snapshot=False):
            deploy([whole, cut], device, progress=unplug)
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "results")) as (device,):
        assert any(name.startswith(".tmp-") for name in objects_on(device))
        deploy([whole, cut], device)
        assert objects_on(device) == {file.sha256: file.size_bytes for file in (whole, cut)}


def test_a_device_that_is_closed_while_it_is_sent_to_gets_no_more(tmp_path: Path) -> None:
    """As by Ctrl-C, while another thread sends."""
    sent_bytes: list[int] = []
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "results")) as (device,):

        def close(sent: int, _total: int) -> None:
            sent_bytes.append(sent)
            device.close()

        with raising(DeviceLostError, "was closed", snapshot=False):
            deploy([local_file(tmp_path, name, name.encode() * 4 * MIB) for name in ("a", "b")], device, progress=close)
    assert len(sent_bytes) <= 2


def test_a_local_file_that_vanishes_before_it_is_sent_is_named(device: Device, tmp_path: Path) -> None:
    file = local_file(tmp_path, "gone", b"gone")
    file.path.unlink()
    with raising(ArtifactError, "gone", snapshot=False):
        _push_all(device, device.root, [file], None)


def test_ctrl_c_leaves_nothing_half_written(device: Device, tmp_path: Path) -> None:
    def interrupt(sent: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy([local_file(tmp_path, "one", bytes(4 * MIB))], device, progress=interrupt)
    assert objects_on(device) == {}


def test_two_devices_are_deployed_to_at_once(tmp_path: Path) -> None:
    files = [local_file(tmp_path, name, os.urandom(MIB)) for name in ("a", "b", "c")]
    with (
        connect(parse_addresses(["virtual:s25", "virtual:tabs11", "local"]), layout=Layout(tmp_path / "results")) as devices,
        ThreadPoolExecutor() as threads,
    ):
        deployments = list(threads.map(lambda device: deploy(files, device), devices))
    assert [deployment.sent_bytes for deployment in deployments] == [3 * MIB] * 3
    assert [deployment.device.address for deployment in deployments] == ["virtual:s25", "virtual:tabs11", "local"]


def test_a_folder_that_cannot_be_made_is_an_error_with_the_devices_own_words(virtual: Device, tmp_path: Path) -> None:
    virtual.shell(["sh", "-c", f"mkdir -p '{virtual.root}' && echo > '{virtual.root}/objects'"], 10)
    with raising(DeviceError, "virtual:s25", "File exists"):
        deploy([local_file(tmp_path, "one", b"1")], virtual)
