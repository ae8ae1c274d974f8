"""Slots: a host's devices as ads that HTCondor reads, whatever devices are called, and what the slots of a pool are doing."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.class_ads import matches
from support.scripted_pool import ScriptedPool, phone
from support.sentences import reads

from quadbench.artifacts.safe_text import is_plain
from quadbench.devices.lab.selection import Wish
from quadbench.errors import MissingDependencyError
from quadbench.farm import slots
from quadbench.farm.condor import Ad, Condor
from quadbench.farm.slots import (
    SILENT_S,
    START,
    Bay,
    Bays,
    Slot,
    capability_need,
    device_need,
    encoded,
    is_silent,
    needs_served,
    read_slots,
    requirement,
    why_it_waits,
    wish_need,
)

VERSION = "0.1.0"
BUILD = capability_need("build")
HOSTILE = [
    'a "quoted" name',
    "back\\slash",
    'both \\"',
    "end\\",
    "comma, comma",
    "100%25 %s %",
    "$(HOME) $$(Name) $ENV(HOME)",
    "a = b && true",
    "ünï 🙂 中文",
    "<script>alert(1)</script>",
    "x" * 190,
    "line\nSlotReady = true\n- slot9\n",
    "\x1b[31mred\x1b[0m\x07\r\x00",
    "\u2028\u202e\ufeff",
    "\ud800",
    "y" * 10_000,
]


class AdPool(Condor):
    """A pool whose collector has these ads."""

    def __init__(self, *ads: Ad) -> None:
        super().__init__(configuration=Path("/nowhere"))
        object.__setattr__(self, "ads", ads)

    def slots(self, *attributes: str, constraint: str = "") -> list[Ad]:
        ads: Sequence[Ad] = getattr(self, "ads")  # noqa: B009
        return list(ads)


def ad(**changes: object) -> dict[str, object]:
    """Return the ad of a slot with a phone, as HTCondor's tools print it."""
    plain = {
        "Name": "slot1@lab-1",
        "Machine": "lab-1",
        "State": "Unclaimed",
        "Activity": "Idle",
        "QuadbenchVersion": VERSION,
        "SlotDevice": "R3CX",
        "SlotSeen": int(time.time()),
        "SlotReady": True,
        "SlotAddress": "s25@R3CX",
        "SlotServes": encoded(device_need("R3CX")),
        "SlotLabels": encoded(json.dumps({"profile": "s25"})),
    }
    return plain | changes


def slot(**changes: object) -> Slot:
    (read,) = read_slots(AdPool(ad(**changes)))
    return read


def hostile(text: str) -> Bay:
    labels = {"name": text, "rack": text, "with-dash": text, text: "value"}
    serves = needs_served(text, labels)
    return Bay(name=text, address=text, serves=serves, labels=labels, reserved_by=text, loaded=text, rested_s=5.0)


def texts(of: Slot) -> list[str]:
    bay = of.bay
    named = [
        of.host,
        of.version,
        of.used_by or "",
        bay.name,
        bay.address,
        bay.why_not,
        bay.reserved_by or "",
        bay.loaded,
    ]
    return [*named, *bay.serves, *bay.labels, *bay.labels.values()]


def is_one_line(text: str) -> bool:
    return is_plain(text.replace("\t", ""))


def check_ads(printed: str, count: int) -> None:
    """Check that ads have one line an attribute, and one end each."""
    lines = printed.split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if line.startswith("-")] == [f"- slot{number}" for number in range(1, count + 1)]
    literal = r'true|false|undefined|-?\d+|"(\\"|[^"])*"'
    assert [line for line in lines if not re.fullmatch(rf"[A-Za-z]\w* = ({literal})|- slot\d+", line)] == []
    assert all(is_one_line(line) for line in lines)


# Ads as a host prints them, and as they are read back


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_an_ad_of_a_device_of_any_name_is_read_back_and_says_nothing_else(text: str) -> None:
    bay = hostile(text)
    check_ads(Bays(2).ads([bay], VERSION), 2)
    (read,) = read_slots(ScriptedPool(hosts={"lab-1": [bay]}))
    assert all(is_one_line(one) and len(one) < 1100 for one in texts(read))
    assert read.bay.why_not == ""
    if text.isprintable() and len(text) <= 300:
        assert replace(read.bay, labels=dict(read.bay.labels)) == bay


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=50))
def test_an_ad_of_any_text_is_one(text: str) -> None:
    bay = replace(hostile(text or "x"), why_not=text)
    check_ads(Bays(1).ads([bay], text), 1)
    (read,) = read_slots(ScriptedPool(hosts={"lab-1": [bay]}, version=text)) or [slot()]  # a name of nothing printable is none
    assert all(is_one_line(one) for one in texts(read))


@given(st.text(max_size=100))
def test_an_encoded_text_has_no_character_that_means_anything(text: str) -> None:
    assert re.fullmatch(r"[\w.~:@%-]*", encoded(text), re.ASCII)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_htcondor_reads_an_ad_as_it_is_meant(text: str, tmp_path: Path) -> None:
    bay = hostile(text)
    printed = Bays(1).ads([bay], VERSION).replace("- slot1\n", "")
    (tmp_path / "ads").write_text(f'MyType = "Machine"\nMachine = "lab-1"\nName = "slot1@lab-1"\n{printed}\n')
    (tmp_path / "condor_config").write_text("LOCAL_CONFIG_FILE =\nLOCAL_CONFIG_DIR =\n")
    pool = Condor(configuration=tmp_path / "condor_config")
    try:
        (as_read,) = json.loads(pool.run("condor_status", "-ads", "ads", "-json", folder=tmp_path))
    except MissingDependencyError:
        pytest.skip("HTCondor is not installed: apt-get install --no-install-recommends condor")
    (read,), (expected,) = read_slots(AdPool(as_read)), read_slots(ScriptedPool(hosts={"lab-1": [bay]}))
    assert read.bay == expected.bay


@pytest.mark.parametrize(
    ("seconds", "read"), [(float("nan"), 0), (float("inf"), 10**9), (float("-inf"), 0), (-1.0, 0), (1e300, 10**9), (7.4, 7)]
)
def test_seconds_of_rest_are_a_whole_number_in_an_ad(seconds: float, read: int) -> None:
    bay = replace(phone("R3CX"), rested_s=seconds)
    assert f"SlotRestedS = {read}\n" in Bays(1).ads([bay], VERSION)


def test_a_device_with_many_labels_keeps_a_part_of_them_and_all_that_it_serves() -> None:
    labels = {f"label{number}": "long" * 20 for number in range(99)}
    bay = phone("R3CX", **labels, **{f"more{number}": "x" for number in range(200)})
    (read,) = read_slots(ScriptedPool(hosts={"lab-1": [bay]}))
    assert len(read.bay.labels) == 100
    assert read.bay.labels.items() <= bay.labels.items()
    assert read.bay.serves == bay.serves


def test_labels_that_can_be_attributes_are(tmp_path: Path) -> None:
    printed = Bays(1).ads([phone("R3CX", rack="left", **{"with-dash": "a", "ünï": "b"})], VERSION)
    assert 'Label_rack = "left"\n' in printed
    assert re.findall(r"^Label_(\w+)", printed, re.ASCII | re.MULTILINE) == ["name", "serial", "profile", "rack"]


# A device has its slot


def devices_of(bays: Bays, *names: str) -> list[str | None]:
    """Return for each slot its device, with a `!` if it is gone, and None for a slot that had none."""
    ads = bays.ads([phone(name) for name in names], VERSION).split("- slot")[:-1]
    found = [re.search(r'SlotDevice = "(\w+)"', one) for one in ads]
    assert [("SlotReady = true" in one) for one in ads] == [bool(name and name[1] in names) for name in found]
    return [f"{name[1]}{'' if name[1] in names else '!'}" if name else None for name in found]


def test_a_device_keeps_its_slot_and_gets_it_back_unless_others_needed_it() -> None:
    bays = Bays(3)
    assert devices_of(bays, "B", "A") == ["A", "B", None]
    assert devices_of(bays, "B") == ["A!", "B", None]
    assert devices_of(bays, "C", "B") == ["A!", "B", "C"]
    assert devices_of(bays, "A", "B") == ["A", "B", "C!"]
    assert devices_of(bays, "D", "B", "A") == ["A", "B", "D"]
    assert devices_of(bays) == ["A!", "B!", "D!"]
    assert devices_of(bays, "C") == ["C", "B!", "D!"]


def problems_of(bays: Bays, *names: str) -> list[str]:
    return re.findall(r"^SlotProblem = (.*)$", bays.ads([phone(name) for name in names], VERSION), re.MULTILINE)


def test_of_more_devices_than_slots_the_first_have_one_and_all_slots_name_the_others(caplog: pytest.LogCaptureFixture) -> None:
    bays = Bays(2)
    assert devices_of(bays, "B", "C") == ["B", "C"]
    assert problems_of(bays, "B", "C") == ["undefined"] * 2
    assert caplog.text == ""
    assert devices_of(bays, "A", "B", "C", "D") == ["B", "C"]
    assert "more slots" in caplog.text
    (problem,) = set(problems_of(bays, "A", "B", "C", "D"))
    reads(problem, 2, "A, D")
    assert devices_of(bays, "A", "B") == ["B", "A"]
    assert problems_of(bays, "A", "B") == ["undefined"] * 2


def test_devices_of_any_name_without_a_slot_are_named_on_one_line() -> None:
    names = [f"{text}{number}" for text in HOSTILE for number in range(3)]
    pool = ScriptedPool(hosts={"lab-1": [hostile(name) for name in names]}, room=1)
    (read,) = read_slots(pool)
    assert is_one_line(read.problem)
    assert len(read.problem) < 1100
    check_ads(Bays(2).ads(pool.hosts["lab-1"], VERSION), 2)


# Ads of others


WRONG: list[Any] = [
    *(None, True, -1, 10**400, float("nan"), float("inf"), [], {}, [[]], {"a": 1}),
    *("", "x" * 10**6, "\x1b[31m\n", "%1b%5b31m%0a", "[" * 10_000, "[1]", '{"a": {}}', "%FF", "null", ",,,", "9" * 5000),
]


@pytest.mark.parametrize("name", slots._READ)
def test_an_ad_with_any_value_is_read_as_one_line_texts_or_left_out(name: str) -> None:
    for value in WRONG:
        others = [slot for slot in read_slots(AdPool(ad(Machine="lab-2"), ad(**{name: value}))) if slot.host != "lab-2"]
        for read in others:
            assert all(is_one_line(one) and len(one) < 1100 for one in texts(read)), value
            assert 0 <= read.bay.rested_s <= 1e9
            assert is_plain(why_it_waits(BUILD, VERSION, "ana", [read]))
    assert len(read_slots(AdPool(ad(), {}))) == 2


def test_a_slot_that_was_not_described_lately_is_silent() -> None:
    now = int(time.time())
    assert not is_silent(slot(SlotSeen=now - SILENT_S + 30))
    for seen in (now - SILENT_S - 1, 0, None, "now", float(now), 10**400 * -1):
        silent = slot(SlotSeen=seen)
        assert is_silent(silent), seen
        reads(silent.bay.why_not)


@pytest.mark.parametrize(
    ("changes", "state", "why_not"),
    [
        ({}, "free", ""),
        ({"State": "Claimed", "Activity": "Busy", "RemoteOwner": "ben@lab"}, "busy", "busy with a job of ben"),
        ({"State": "Drained"}, "draining", "its host drains"),
        ({"Activity": "Retiring", "RemoteOwner": "ben@lab"}, "draining", "its host drains"),
        ({"SlotReady": False, "SlotWhyNot": "in quarantine: hot"}, "free", "in quarantine: hot"),
        ({"SlotReady": False}, "free", "not ready"),
        ({"SlotReady": "true"}, "free", "not ready"),
        ({"SlotReservedBy": "ben@lab-2"}, "free", "reserved by ben@lab-2"),
        ({"SlotReservedBy": "ana@lab-1"}, "free", ""),
        ({"SlotReservedBy": encoded("ben\n%")}, "free", "reserved by ben / %"),
    ],
)
def test_a_slot_s_state_and_why_it_starts_nothing(changes: dict[str, object], state: str, why_not: str) -> None:
    read = slot(**changes)
    assert (read.state, read.why_not_for("ana@lab-1")) == (state, why_not)


def test_slots_are_sorted_by_host_and_device() -> None:
    ads = [ad(Machine=host, SlotDevice=device) for host, device in (("b", "a"), ("a", "z"), ("a", "c"))]
    assert [(one.host, one.bay.name) for one in read_slots(AdPool(*ads))] == [("a", "c"), ("a", "z"), ("b", "a")]


def test_why_a_job_waits() -> None:
    need = device_need("R3CX")

    def why(*waited_for: Slot, version: str = VERSION, need: str = need) -> str:
        return why_it_waits(need, version, "ana@lab-1", waited_for)

    busy = slot(RemoteOwner="ben@lab")
    answers = [
        why(),
        why(slot(), need=BUILD),
        why(slot(), slot(QuadbenchVersion="0.3.0"), version="0.2.0"),
        why(slot(), busy),
        why(slot(SlotReservedBy="ben@lab-2"), slot(State="Drained"), slot(SlotSeen=0), slot(SlotReady=False)),
        why(*[busy] * 7),
    ]
    reads(
        answers,
        "no slot of the pool serves",
        "0.3.0",
        "free, starts soon",
        "busy with a job of ben",
        "reserved by ben@lab-2",
        "2 more",
    )
    assert why(busy, slot(QuadbenchVersion="0.3.0")) == "R3CX: busy with a job of ben"


# What jobs need


@given(st.sampled_from([None, "name", "profile", "chip"]), st.sampled_from(["s25", "S25", "sm8750", "left"]))
def test_a_wish_is_served_just_where_it_fits(key: str | None, value: str) -> None:
    for labels in ({"name": "left", "profile": "s25"}, {"name": "s25", "chip": "SM8750"}, {"serial": "left"}):
        wish = Wish(word="", key=key, value=value, count=1)
        assert (wish_need(wish) in needs_served("R3CX", labels)) == wish.fits(labels)


ANA: dict[str, str | int] = {
    "QuadbenchJob": 1,
    "QuadbenchNeed": encoded(device_need("R3CX")),
    "QuadbenchOwner": encoded("ana@lab-1"),
}
MATCHES: dict[str, tuple[dict[str, str], dict[str, str | None], str, bool]] = {
    "a free device": ({}, {}, VERSION, True),
    "a device in quarantine": ({"why_not": "in quarantine"}, {}, VERSION, False),
    "a device that she has reserved": ({"reserved_by": "ana@lab-1"}, {}, VERSION, True),
    "a device that another has reserved": ({"reserved_by": "ben@lab-1"}, {}, VERSION, False),
    "a device that Ana has reserved": ({"reserved_by": "Ana@lab-1"}, {}, VERSION, False),
    "another version": ({}, {}, "0.2.0", False),
    "another need": ({}, {"QuadbenchNeed": encoded(device_need("Z9"))}, VERSION, False),
    "a need in other letters": ({}, {"QuadbenchNeed": encoded(device_need("r3cx"))}, VERSION, False),
    "a part of a need": ({}, {"QuadbenchNeed": "device"}, VERSION, False),
    "a job that is not quadbench's": ({}, {"QuadbenchNeed": None}, VERSION, False),
}


@pytest.mark.parametrize("case", MATCHES)
def test_a_slot_starts_the_jobs_that_it_may(case: str) -> None:
    bay, job, version, is_match = MATCHES[case]
    printed = Bays(1).ads([replace(phone("R3CX"), **bay)], VERSION).replace("- slot1\n", "")  # type: ignore[arg-type]
    wanted = {name: value for name, value in (ANA | job).items() if value is not None}
    assert matches(START, printed, wanted, requirement(device_need("R3CX"), version)) == is_match


def test_a_slot_without_a_device_or_a_sign_of_life_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    need = requirement(device_need("R3CX"), VERSION)
    bays = Bays(1)
    then = time.time() - SILENT_S - 5
    monkeypatch.setattr(time, "time", lambda: then)
    silent = bays.ads([phone("R3CX")], VERSION).replace("- slot1\n", "")
    monkeypatch.undo()
    assert not matches(START, silent, ANA, need)
    assert not matches(START, bays.ads([], VERSION).replace("- slot1\n", ""), ANA, "true")


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() and len(text) < 300], ids=lambda text: text[:12])
def test_a_job_for_a_device_of_any_name_goes_there_and_nowhere_else(text: str) -> None:
    need = device_need(text)
    job: dict[str, str | int] = {"QuadbenchJob": 1, "QuadbenchNeed": encoded(need), "QuadbenchOwner": encoded(text)}
    here, there = (Bays(1).ads([hostile(name)], VERSION).replace("- slot1\n", "") for name in (text, f"{text}x"))
    assert matches(START, here, job, requirement(need, VERSION))
    assert not matches("true", there, job, requirement(need, VERSION))
    assert not matches(START, there, job, "true")
