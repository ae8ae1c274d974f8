"""The inventory: phones that were seen stay known, expected ones that vanish are errors, and quarantine keeps runs away."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.sentences import raising, reads, says

from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.devices.lab.farm_file import ExpectedPhone, FarmFile
from quadbench.devices.lab.health import Health, PhoneCondition, after_failure, quarantined
from quadbench.devices.lab.held import held
from quadbench.devices.lab.inventory import Inventory, InventoryPhone, Sighting
from quadbench.devices.lab.leases import Claim, Claims
from quadbench.devices.lab.overview import FarmPhone, device_named, merged, phone_named
from quadbench.devices.lab.wishes import addresses_for
from quadbench.dispatch.offers import HostBays
from quadbench.errors import DeviceError, DeviceNotFoundError, SpecError, UnknownNameError, UserError
from quadbench.farm.slots import Bay
from quadbench.host import host_name, user_and_host
from quadbench.results.engine import Source, open_engine
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.spec import load

SEEN = Sighting(
    device="R3",
    address="s25@R3",
    serial="R3",
    state="device",
    model="SM-S931B",
    profile="s25",
    chip="SM8750",
    android_release="15",
    abi="arm64-v8a",
    host="lab-1",
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def inventory(database: Source) -> Iterator[Inventory]:
    engine = open_engine(database)
    yield Inventory(engine)
    engine.dispose()


def test_a_phone_stays_known_with_its_health_wherever_it_goes(inventory: Inventory) -> None:
    inventory.note_seen([SEEN])
    inventory.change("R3", lambda _: quarantined("swollen battery"))
    inventory.note_seen([replace(SEEN, host="lab-2", android_release="16"), replace(SEEN, device="Z9", serial="Z9")])
    first, second = inventory.phones()
    assert (first.seen.host, first.seen.android_release) == ("lab-2", "16")
    assert first.condition == quarantined("swollen battery")
    assert second.condition == PhoneCondition()
    assert abs(datetime.now(UTC) - first.last_seen) < timedelta(minutes=1)
    assert inventory.phones(["Z9", "nobody's"]) == [second]
    assert inventory.phones([]) == []


def test_a_phone_that_does_not_answer_stays_known_as_it_was(inventory: Inventory) -> None:
    inventory.note_seen([SEEN])
    inventory.note_seen([replace(SEEN, state="unauthorized", model="", chip=None, profile=None)])
    (phone,) = inventory.phones()
    assert (phone.seen.state, phone.seen.chip, phone.seen.profile) == ("unauthorized", "SM8750", "s25")


def test_a_phone_that_was_never_seen_has_no_health_to_change(inventory: Inventory) -> None:
    inventory.note_seen([SEEN])
    with raising(UnknownNameError, "R4", "R3"):
        inventory.change("R4", lambda condition: after_failure(condition, "lost"))


def phones(*here: Sighting, known: tuple[InventoryPhone, ...] = (), claims: dict[str, Claims] | None = None) -> list[FarmPhone]:
    expected = (ExpectedPhone(name="left", serial="R3", labels={"rack": "one"}), ExpectedPhone(name="right", serial="Z9"))
    return merged(here, known, claims or {}, expected, "lab-1")


def test_phones_that_are_expected_and_not_ready_are_missing() -> None:
    left, right = phones(SEEN)
    assert (left.name, left.is_missing, left.labels["rack"]) == ("left", False, "one")
    assert (right.name, right.is_missing, right.seen.state) == ("right", True, "missing")
    left, _ = phones(known=(InventoryPhone(seen=SEEN, last_seen=NOW, condition=PhoneCondition()),))
    assert (left.seen.state, left.is_missing, left.is_here) == ("gone", True, False)
    elsewhere = InventoryPhone(seen=replace(SEEN, host="lab-2"), last_seen=NOW, condition=PhoneCondition())
    left, _ = phones(known=(elsewhere,))
    assert (left.seen.state, left.is_missing, left.is_here) == ("device", False, False)


@pytest.mark.parametrize(
    ("claims", "condition", "is_free"),
    [
        (Claims(), PhoneCondition(), True),
        (Claims(), quarantined("hot"), False),
        (Claims(job=Claim(owner="ana@lab-1", purpose="run", until=NOW)), PhoneCondition(), False),
        (Claims(reservation=Claim(owner="ana@lab-1", purpose="demo", until=NOW)), PhoneCondition(), True),
        (Claims(reservation=Claim(owner="ben@lab-1", purpose="demo", until=NOW)), PhoneCondition(), False),
    ],
)
def test_a_phone_is_free_where_nothing_speaks_against_it(claims: Claims, condition: PhoneCondition, is_free: bool) -> None:
    known = InventoryPhone(seen=SEEN, last_seen=NOW, condition=condition)
    left, _ = phones(SEEN, known=(known,), claims={"R3": claims})
    assert left.is_free_for("ana@lab-1") is is_free


def test_a_word_means_one_device() -> None:
    other = replace(SEEN, device="R5", serial="R5", address="s25@R5")
    farm = phones(SEEN, other)
    assert [phone_named(word, farm).seen.serial for word in ("left", "R3", "s25@R3", "R5")] == ["R3", "R3", "R3", "R5"]
    with raising(UserError, "s25@R5"):
        phone_named("s25", farm)
    assert device_named("local", farm) == f"local@{host_name()}"
    assert device_named("virtual:tabs11", farm) == f"virtual-tabs11@{host_name()}"
    with raising(UnknownNameError, "lift", "left"):
        device_named("lift", farm)
    with raising(UserError, "hub:s25"):
        device_named("hub:s25", farm)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schema_version: 2\ndevices: []\n", ("schema_version",)),
        ("schema_version: 1\ndevices: [{name: a, serial: R3}, {name: b, serial: R3}]\n", ("devices[1].serial", "R3")),
        (
            "schema_version: 1\ndevices: [{name: a, serial: r3}, {name: r3, serial: R4}]\n",
            ("devices[1].name", "r3"),
        ),
        ("schema_version: 1\ndevices: [{name: a, serial: R3, labels: {chip: x}}]\n", ("chip",)),
        ("schema_version: 1\ndevices: [{name: a, serial: 'R 3'}]\n", ()),
        ("schema_version: 1\ndevices: [{name: s25, serial: R3}]\n", ("devices[0].name", "s25")),
        ("schema_version: 1\ndevices: [{name: a, serial: 'virtual:s25'}]\n", ("devices[0].serial", "virtual:s25")),
        ("schema_version: 1\ndevices: [{name: a, serial: R3, label: x}]\n", ()),
    ],
)
def test_a_wrong_farm_file_is_refused_at_its_line(text: str, problem: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "farm.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as refusal:
        load(path, FarmFile)
    says(str(refusal.value), *problem)


SERIAL = "127.0.0.1:5640"


@pytest.fixture
def attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """A phone at the user's adb server, which is a virtual device, and a results folder with a database."""
    monkeypatch.chdir(tmp_path)
    layout = Layout(tmp_path / "results")
    open_records(layout.database).close()
    with connect(parse_addresses(["virtual:s25"]), layout=Layout(tmp_path / "phones")):
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{tmp_path}/phones/devices/virtual-s25/system/run/adb.sock")
        monkeypatch.delenv("ANDROID_SERIAL", raising=False)
        yield layout


def test_a_phone_is_listed_reserved_put_into_quarantine_and_chosen(
    attached: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "farm.yaml").write_text(
        f"schema_version: 1\ndevices: [{{name: left, serial: '{SERIAL}', labels: {{rack: one}}}}]\n"
    )

    def said(*words: str, code: int = 0) -> str:
        assert main([*words, "--results", str(attached.root)]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    row = next(row for row in json.loads(said("devices", "--json")) if row["serial"] == SERIAL)
    assert (row["name"], row["profile"], row["chip"], row["state"], row["host"]) == (
        "left",
        "s25",
        "SM8750",
        "device",
        host_name(),
    )
    assert (row["health"], row["lease"], row["is_expected"]) == ("healthy", None, True)
    assert addresses_for(["rack=one", "local"], attached) == [f"s25@{SERIAL}", "local"]
    assert addresses_for(["left"], attached) == [SERIAL]

    def bay() -> Bay:
        with opened(attached) as engine:
            (only,) = HostBays(given=(), capabilities=(), engine=engine).now()
        return only

    assert (bay().labels["name"], bay().labels["serial"], bay().why_not) == ("left", SERIAL, "")
    assert bay().serves > {f"device {bay().name}", "wish chip=sm8750", "wish =left"}
    for word in ("s25", "left", f"s25@{SERIAL}"):
        with raising(DeviceNotFoundError, "chip=SM8750"):
            addresses_for([word, "chip=SM8750"], attached)

    says(said("reserve", "left", "--for", "30m", "--why", "a demo"), user_and_host())
    assert json.loads(said("who", "--json"))[0]["purpose"] == "a demo"
    assert bay().reserved_by == user_and_host()
    assert "a demo" in said("devices")
    says(said("release", "left"))
    says(said("who"))
    says(said("release", "left", code=2))
    says(_refused("reserve", "left", "--for", "3w", capsys=capsys), "3w")

    says(said("devices", "quarantine", "left", "--why", "it smells"))
    assert "it smells" in bay().why_not
    says(said("run", "quickstart", "--devices", "s25*1", code=5), "s25*1")
    in_quarantine = raising(DeviceError, "s25", "quadbench devices release")
    with connect(parse_addresses(["s25"]), layout=attached) as devices, opened(attached) as engine, in_quarantine:
        Inventory(engine).require_usable(devices)
    says(said("devices", "release", "left"))
    with connect(parse_addresses(["s25"]), layout=attached) as devices, opened(attached) as engine:
        Inventory(engine).note_job(devices[0], "the cable\nis loose")
        (phone,) = Inventory(engine).phones()
    assert (phone.condition.health, phone.seen.model) == (Health.QUARANTINED, "SM-S931B")
    reads(phone.condition.reason)


def test_a_job_that_is_cut_short_counts_only_what_was_a_phone_s_own_fault(attached: Layout) -> None:
    with connect(parse_addresses(["s25"]), layout=attached) as devices, opened(attached) as engine:
        inventory = Inventory(engine)
        with suppress(KeyboardInterrupt), held(devices, engine, "run"):
            raise KeyboardInterrupt
        assert inventory.phones() == []
        with suppress(KeyboardInterrupt), held(devices, engine, "run") as job:
            job.note_left_out(devices[0], DeviceError("no room"))
            raise KeyboardInterrupt
        assert [phone.condition for phone in inventory.phones()] == [PhoneCondition(reason="no room", failures=1)]
        with held(devices, engine, "run"):
            pass
        assert [phone.condition for phone in inventory.phones()] == [PhoneCondition()]


def test_an_expected_phone_that_vanished_is_an_error(
    attached: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    farm = tmp_path / "elsewhere.yaml"
    farm.write_text("schema_version: 1\ndevices: [{name: right, serial: Z9}]\n")
    monkeypatch.setenv("QUADBENCH_FARM", str(farm))
    assert main(["devices", "--results", str(attached.root)]) == 5
    says(capsys.readouterr().err, "right", "Z9")
    farm.unlink()
    assert main(["devices", "--results", str(attached.root)]) == 2
    says(capsys.readouterr().err)


@contextmanager
def opened(layout: Layout) -> Iterator[sa.Engine]:
    engine = open_engine(layout.database)
    yield engine
    engine.dispose()


def _refused(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(list(words))
    return capsys.readouterr().err
