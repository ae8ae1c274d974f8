"""Leases in both engines: one job at a time has a device, across processes; one that stood still stores nothing any more."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.forked import Forked
from support.sentences import raising
from support.stored_records import query, record

from quadbench.devices import Device
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.devices.lab.held import held, leased, write_token
from quadbench.devices.lab.leases import Lease, Leases, lease_name
from quadbench.devices.local import LocalDevice, open_local
from quadbench.errors import DeviceError, LeaseError, QuadbenchError, UserError
from quadbench.host import has_ended, host_name, process_identity
from quadbench.results.engine import Source
from quadbench.results.layout import Layout
from quadbench.results.records import RecordStore

ANA, BEN = "ana@lab-1", "ben@lab-2"
PHONE = "R3CX"


@pytest.fixture
def leases(engine: sa.Engine) -> Leases:
    return Leases(engine)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[LocalDevice]:
    with open_local(Layout(tmp_path / "desk")) as opened:
        yield opened


def test_a_device_that_a_job_has_is_refused_by_name(leases: Leases) -> None:
    lease = leases.take(PHONE, ANA, "run of quickstart")
    with raising(LeaseError, "R3CX", "ana@lab-1", "quickstart", "quadbench who"):
        leases.take(PHONE, BEN, "run of restyle")
    leases.end(lease)
    assert leases.take(PHONE, BEN, "run of restyle").token > lease.token


def test_a_lease_that_is_over_stores_nothing_and_is_not_renewed(engine: sa.Engine, leases: Leases) -> None:
    records = RecordStore(engine)
    lease = leases.take(PHONE, ANA, "run", lease_s=0.05)
    time.sleep(0.1)
    with raising(LeaseError, "R3CX"):
        leases.renew(lease)
    later = leases.take(PHONE, BEN, "run")
    with raising(LeaseError, "ben@lab-2"):
        records.store(record(), lambda connection: leases.check(connection, lease))
    assert records.run_ids() == []
    assert records.store(record(), lambda connection: leases.check(connection, later))
    leases.end(lease)  # which takes nothing from the later one
    leases.renew(later)


def test_of_many_that_want_a_device_at_once_one_gets_it(leases: Leases) -> None:
    def take(number: int) -> Lease | None:
        try:
            return leases.take(PHONE, f"user-{number}@lab", "run")
        except LeaseError:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert len(list(filter(None, pool.map(take, range(16))))) == 1


def test_people_reserve_devices_and_release_their_own(leases: Leases) -> None:
    leases.reserve(PHONE, ANA, "a demo", 3600)
    for act in (lambda: leases.reserve(PHONE, BEN, "mine", 60), lambda: leases.release(PHONE, BEN)):
        with raising(LeaseError, "ana@lab-1"):
            act()
    job = leases.take(PHONE, ANA, "run")
    assert leases.standing()[PHONE].token == job.token
    leases.end(job)
    leases.release(PHONE, ANA)
    assert leases.standing() == {}
    with raising(UserError, "R3CX"):
        leases.release(PHONE, ANA)


def test_of_some_devices_only_their_own_claims_are_told(leases: Leases) -> None:
    for device in (PHONE, "R4", "R5"):
        leases.reserve(device, ANA, "a demo", 3600)
    assert list(leases.standing([PHONE, "R5", "nobody's"])) == sorted([PHONE, "R5"])
    assert leases.standing([]) == {}
    assert len(leases.standing()) == 3


def test_what_is_taken_away_by_force_is_lost_to_the_job(leases: Leases) -> None:
    job = leases.take(PHONE, ANA, "run")
    leases.release(PHONE, BEN, force=True)
    with raising(LeaseError):
        leases.renew(job)


def test_a_phone_has_one_name_everywhere_and_others_one_on_their_host() -> None:
    assert lease_name("adb", PHONE) == PHONE
    for family, serial in (("local", "local"), ("virtual", "virtual-s25"), ("adb", "127.0.0.1:5555"), ("adb", "emulator-5554")):
        assert lease_name(family, serial) == f"{serial}@{host_name()}"


def test_a_job_keeps_its_devices_until_it_ends(engine: sa.Engine, leases: Leases, device: LocalDevice) -> None:
    name = lease_name(device.family, device.serial)
    with held([device], engine, "a long run", lease_s=2.0) as job:  # long enough for a loaded machine to renew it in time
        for _ in range(5):
            time.sleep(0.5)
            with pytest.raises(LeaseError):
                leases.take(name, BEN, "run")
        job.confirm(device)
        assert Path(device.root, "lease").read_text().split()[0] == leases.database_name()
        assert job.guard("hub:s25") is None
    assert leases.standing() == {}
    assert not Path(device.root, "lease").exists()


def test_a_device_that_is_left_out_is_given_back_at_once(
    tmp_path: Path, engine: sa.Engine, leases: Leases, device: LocalDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(to: Device, *words: Any) -> None:
        if to is not device:
            raise DeviceError("it does not answer")
        write_token(to, *words)

    monkeypatch.setattr("quadbench.devices.lab.held.write_token", written)
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "desk")) as others:
        left_out: dict[str, QuadbenchError] = {}
        with held([device, *others], engine, "run", left_out=left_out):
            assert list(left_out) == ["virtual:s25"]
            assert list(leases.standing()) == [lease_name(device.family, device.serial)]


def test_a_device_that_is_lost_ends_what_runs_there(engine: sa.Engine, leases: Leases, device: LocalDevice) -> None:
    with held([device], engine, "run", lease_s=2.0) as job:
        leases.release(lease_name(device.family, device.serial), BEN, force=True)
        began = time.monotonic()
        device.shell(["sleep", "30"], 60)
        assert time.monotonic() - began < 10
        with pytest.raises(LeaseError):
            job.confirm(device)


def test_a_token_of_another_database_keeps_a_job_away_until_it_counts_no_more(tmp_path: Path, device: LocalDevice) -> None:
    file = Path(device.root, "lease")
    write_token(device, "another-database", Lease(device=PHONE, token=7, owner=BEN))
    with (
        raising(LeaseError, "local", "ben@lab-2"),
        leased([device], Layout(tmp_path), "run"),
    ):
        raise AssertionError
    file.write_text(f"another-database 7 {int(time.time()) - 1} {BEN}\n")
    with leased([device], Layout(tmp_path), "run"):
        assert BEN not in file.read_text()
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "\n", "x", "x y z", "another 1 99999999999999999999999999 ben\n", "\0\xff" * 5000])
def test_a_token_file_that_nothing_has_written_is_written_anew(content: str, device: LocalDevice) -> None:
    file = Path(device.root, "lease")
    file.write_text(content)
    write_token(device, "mine", Lease(device=PHONE, token=1, owner=ANA))
    assert file.read_text().startswith("mine 1 ")


def test_an_older_token_of_the_same_database_does_not_replace_a_newer(device: LocalDevice) -> None:
    write_token(device, "mine", Lease(device=PHONE, token=2, owner=BEN))
    with raising(LeaseError, "ben@lab-2"):
        write_token(device, "mine", Lease(device=PHONE, token=1, owner=ANA))


_HOLDER = """
import sys
from pathlib import Path
from support.stored_records import record
from quadbench.devices.local import open_local
from quadbench.errors import LeaseError
from quadbench.devices.lab.held import held
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
with open_records(sys.argv[1]) as records, open_local(Layout(Path(sys.argv[2]))) as device:
    with held([device], records.engine, "run", lease_s=1.0) as job:
        print("holds", flush=True)
        sys.stdin.readline()
        for act in (lambda: job.confirm(device), lambda: records.store(record("zombie"), job.guard("local"))):
            try:
                act()
                print("went on")
            except LeaseError as error:
                print(error.message)
"""


def test_a_holder_that_was_frozen_past_its_lease_is_refused(
    database: Source, engine: sa.Engine, leases: Leases, tmp_path: Path
) -> None:
    with Forked(_HOLDER, str(database), tmp_path / "frozen") as holder:
        assert holder.stdout.readline() == "holds\n"
        os.kill(holder.pid, signal.SIGSTOP)
        later = _taken_in_time(leases, lease_name("local", "local"))
        RecordStore(engine).store(record("later"), lambda connection: leases.check(connection, later))
        os.kill(holder.pid, signal.SIGCONT)
        said, _ = holder.communicate("go on\n")
    assert said.count("ben@lab-2 has taken the device since") == 2
    assert "went on" not in said
    assert query(database, "SELECT record_id FROM records") == [("later",)]


def test_a_holder_that_was_killed_keeps_nobody_away(database: Source, leases: Leases, tmp_path: Path) -> None:
    with Forked(_HOLDER.replace("1.0", "600.0"), str(database), tmp_path / "killed") as holder:
        assert holder.stdout.readline() == "holds\n"
        with pytest.raises(LeaseError):
            leases.take(lease_name("local", "local"), BEN, "run")
        holder.kill()
    assert leases.standing() == {}
    assert leases.take(lease_name("local", "local"), BEN, "run").token == 2


def test_a_process_is_dead_only_where_that_is_known() -> None:
    mark = process_identity()
    assert not has_ended(mark)
    boot, namespace, pid, start = mark.split(" ")
    assert has_ended(f"{boot} {namespace} {pid} {int(start) - 1}")  # the number was another's
    assert has_ended(f"{boot} {namespace} {2**22 + 1} 7")
    for elsewhere in (f"other {namespace} {pid} 7", f"{boot} pid:[1] {pid} 7", "", "x", f"{boot} {namespace} x 7"):
        assert not has_ended(elsewhere)
    with subprocess.Popen(["true"]) as child:
        while not has_ended(f"{boot} {namespace} {child.pid} 7"):  # ended, and not waited for yet
            time.sleep(0.01)


def _taken_in_time(leases: Leases, device: str) -> Lease:
    deadline = time.monotonic() + 20
    while True:
        try:
            return leases.take(device, BEN, "run")
        except LeaseError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
