"""A host's bays: its phones, given devices and place for builds, and which of them may start the farm's jobs now."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa
from support.scripted_pool import ScriptedPool
from support.sentences import raising, reads

from quadbench.devices.addresses import parse_address
from quadbench.devices.connections import DeviceRow
from quadbench.devices.lab.health import quarantined, released
from quadbench.devices.lab.inventory import Inventory, Sighting
from quadbench.devices.lab.leases import Leases
from quadbench.devices.lab.selection import Wish
from quadbench.dispatch import offers
from quadbench.dispatch.offers import HostBays, describe_host, given_bay
from quadbench.errors import StorageError, UnknownNameError, UserError
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.farm.jobs import FarmJobs, Start
from quadbench.farm.slots import Bay, capability_need, device_need, read_slots, wish_need
from quadbench.host import host_name

SERIAL = "R3CX"
ROOM = f"room@{host_name()}"
See = Callable[..., None]


def row(serial: str = SERIAL, state: str = "device") -> DeviceRow:
    return DeviceRow(address=f"s25@{serial}", serial=serial, state=state, model="SM-S931B", profile="s25", chip="SM8750")


@pytest.fixture
def see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> See:
    """Return a function that attaches phones to this host in place of those that are; one is there at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUADBENCH_FARM", raising=False)
    here = DeviceRow(address="local", serial="local", state="device", model="this machine", profile="local")

    def attach(*rows: DeviceRow) -> None:
        monkeypatch.setattr(offers, "list_devices", lambda: [*rows, here])

    attach(row())
    return attach


@pytest.fixture
def host(engine: sa.Engine, see: See) -> HostBays:
    return HostBays(given=(), capabilities=(), engine=engine)


def only(host: HostBays) -> Bay:
    (bay,) = host.now()
    return bay


def why_not(host: HostBays, owner: str = "ana@lab-1") -> str:
    """Return why the pool's slot of the host's only device starts no job of an owner."""
    (slot,) = read_slots(ScriptedPool(hosts={host_name(): [only(host)]}))
    return slot.why_not_for(owner)


@contextmanager
def a_job(engine: sa.Engine, affinity: str = "b-1", seat: str = SERIAL) -> Iterator[Job]:
    """Have the farm run a job at a device, with its lease, as an attempt does."""
    jobs, leases = FarmJobs(engine), Leases(engine)
    new = NewJob(kind=JobKind.MEASURE, needs=device_need(seat), affinity=affinity)
    (stored,) = jobs.submit(f"run-{affinity}", [new], "ana@lab-1", "0.1.0", lambda _: None)
    job = jobs.begin(Start(job=stored.id, run=stored.run_id, number=1, seat=seat, host="lab-1"))
    lease = leases.take(seat, job.owner, "a run")
    yield job
    leases.end(lease)
    jobs.finish(job)


def test_a_host_s_phones_given_devices_and_place_for_builds_are_its_bays(engine: sa.Engine, see: See) -> None:
    given = given_bay(parse_address("virtual:s25"))
    host = HostBays(given=[given], capabilities=("build", "compile qnn-sm8750"), engine=engine)
    see(row(), row("Z9"))
    bays = {bay.name: bay for bay in host.now()}
    assert list(bays) == [given.name, ROOM, SERIAL, "Z9"]
    assert bays[ROOM].serves == {capability_need("build"), capability_need("compile qnn-sm8750")}
    assert (bays[ROOM].address, bays[SERIAL].address, bays[given.name].address) == ("", f"s25@{SERIAL}", "virtual:s25")
    chip = wish_need(Wish(word="", key="chip", value="SM8750", count=1))
    assert [name for name, bay in bays.items() if chip in bay.serves] == [given.name, SERIAL, "Z9"]
    assert [name for name, bay in bays.items() if device_need("Z9") in bay.serves] == ["Z9"]
    assert {bay.why_not for bay in bays.values()} == {""}
    assert bays[SERIAL].rested_s == 1e9
    assert [phone.seen.device for phone in Inventory(engine).phones()] == [SERIAL, "Z9"]


def test_a_host_that_can_neither_build_nor_compile_has_no_place_for_it(host: HostBays, see: See) -> None:
    assert [bay.name for bay in host.now()] == [SERIAL]
    see()
    assert host.now() == []


def test_phones_have_the_names_and_labels_of_farm_yaml(host: HostBays, tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text(
        f"schema_version: 1\ndevices: [{{name: left, serial: {SERIAL}, labels: {{rack: one}}}}, {{name: other, serial: Z9}}]\n"
    )
    bay = only(host)
    assert (bay.labels["name"], bay.labels["rack"], bay.labels["host"]) == ("left", "one", host_name())
    assert wish_need(Wish(word="", key=None, value="Left", count=1)) in bay.serves


def test_phones_of_other_hosts_are_not_this_host_s(host: HostBays, engine: sa.Engine) -> None:
    seen = Sighting(
        device="Z9",
        address="s25@Z9",
        serial="Z9",
        state="device",
        model="",
        profile="s25",
        chip=None,
        android_release=None,
        abi=None,
        host="lab-9",
    )
    Inventory(engine).note_seen([seen])
    assert only(host).name == SERIAL


def test_a_phone_in_quarantine_starts_nothing_until_it_is_released(host: HostBays, engine: sa.Engine) -> None:
    inventory = Inventory(engine)
    assert why_not(host) == ""
    inventory.change(SERIAL, lambda _: quarantined("a swollen\nbattery"))
    assert why_not(host) == "in quarantine: a swollen / battery"
    with a_job(engine):
        assert why_not(host) == "in quarantine: a swollen / battery"
    inventory.change(SERIAL, released)
    assert why_not(host) == ""


@pytest.mark.parametrize("state", ["unauthorized", "offline", "no permissions"])
def test_a_phone_that_is_not_ready_starts_nothing(host: HostBays, see: See, state: str) -> None:
    see(row(state=state))
    assert why_not(host) == f"adb says: {state}"
    see(row())
    assert why_not(host) == ""


def test_a_reserved_phone_starts_the_jobs_of_whoever_has_it(host: HostBays, engine: sa.Engine) -> None:
    leases = Leases(engine)
    leases.reserve(SERIAL, "ana@lab-1", "a demo", 600)
    assert (why_not(host), why_not(host, "ben@lab-1")) == ("", "reserved by ana@lab-1")
    leases.release(SERIAL, "ana@lab-1")
    assert why_not(host, "ben@lab-1") == ""


def test_a_phone_that_somebody_uses_from_a_desk_starts_nothing_meanwhile(host: HostBays, engine: sa.Engine) -> None:
    with a_job(engine):
        pass
    leases = Leases(engine)
    lease = leases.take(SERIAL, "ben@desk", "a run")
    assert why_not(host) == "used by ben@desk"
    assert why_not(host, "ben@desk") == "used by ben@desk"
    leases.end(lease)
    assert why_not(host) == ""


def test_the_farm_s_own_job_does_not_keep_its_slot_from_the_next(host: HostBays, engine: sa.Engine) -> None:
    with a_job(engine, "b-1"), a_job(engine, "b-2", seat="Z9"):
        bay = only(host)
        assert (bay.why_not, bay.loaded, bay.rested_s) == ("", "b-1", 0.0)
    bay = only(host)
    assert (bay.why_not, bay.loaded, 0 <= bay.rested_s < 60) == ("", "b-1", True)


@pytest.mark.parametrize("place", ["Inventory.note_seen", "Inventory.phones", "Leases.standing", "last_jobs"])
def test_while_the_database_does_not_answer_no_bay_is_ready(
    engine: sa.Engine, see: See, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    given = given_bay(parse_address("local"))
    host = HostBays(given=[given], capabilities=("build",), engine=engine)
    before = host.now()
    Inventory(engine).change(SERIAL, lambda _: quarantined("hot"))

    def away(*_: object) -> NoReturn:
        raise StorageError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(f"quadbench.dispatch.offers.{place}", away)
        bays = host.now()
    assert [bay.name for bay in bays] == [bay.name for bay in before] == [given.name, ROOM, SERIAL]
    assert {bay.why_not for bay in bays} == {"the farm's database does not answer"}
    assert "no route" in caplog.text
    assert [bay.why_not for bay in host.now()] == ["", "", "in quarantine: hot"]


def test_with_a_wrong_farm_yaml_no_bay_is_ready_and_says_so(host: HostBays, tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("schema_version: 1\ndevices: [{name: a, serial: 'R 3'}, {name: b, serial: 'R 4'}]\n")
    reads(why_not(host), "farm.yaml:2")


def test_of_a_given_device_its_profile_is_known() -> None:
    local, virtual = given_bay(parse_address("local")), given_bay(parse_address("virtual:s25"))
    assert (local.name, local.labels["profile"]) == (f"local@{host_name()}", "local")
    assert (virtual.labels["profile"], virtual.labels["chip"], virtual.address) == ("s25", "SM8750", "virtual:s25")
    assert wish_need(Wish(word="", key=None, value="s25", count=1)) in virtual.serves
    with raising(UserError, "hub:s25", "virtual:NAME"):
        given_bay(parse_address("hub:s25"))
    with raising(UserError, "s25@R3CX"):
        given_bay(parse_address("s25@R3CX"))
    with raising(UnknownNameError, "nothing", snapshot=False):
        given_bay(parse_address("virtual:nothing"))


class SeenEnoughError(Exception):
    """The test has seen enough."""


def test_a_host_is_described_again_and_again(
    host: HostBays, see: See, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []

    def pause(_: float) -> None:
        printed.append(capsys.readouterr().out)
        see(row(), row("Z9"))
        if len(printed) == 2:
            raise SeenEnoughError

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(SeenEnoughError):
        describe_host(host, 2, "0.1.0")
    _, second = printed
    assert [one.count("SlotReady = true") for one in printed] == [1, 2]
    assert second.index(f'SlotDevice = "{SERIAL}"') < second.index("- slot1\n") < second.index('SlotDevice = "Z9"')
