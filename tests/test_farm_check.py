"""`quadbench farm check` finds what keeps a pool from working, on this machine and on its hosts, and names a cure for each."""

import base64
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripted_pool import INSTALLED, ScriptedPool, phone, pool_with_token, token, use_pool
from support.sentences import says

from quadbench.cli import main
from quadbench.errors import QuadbenchError, ServiceError, UserError
from quadbench.farm import pool_check
from quadbench.farm.pool_check import PoolFinding, check_pool
from quadbench.farm.slots import Bay, capability_need

ROOM = Bay(name="room@lab-1", address="", serves=frozenset({capability_need("build")}))
AWAY = ServiceError("the pool does not answer: condor_status: no route", transient=True)
REFUSED = UserError("the pool refuses this user: condor_ping: DENIED")


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedPool:
    """A pool in order: a phone, a host that builds, and this user's token."""
    monkeypatch.setattr(pool_check, "find_program", lambda name: Path("/usr/bin") / name)
    pool = pool_with_token(tmp_path / "pool", [phone("R3CX"), ROOM])
    use_pool(pool, monkeypatch)
    keep(pool, token())
    return pool


def keep(pool: ScriptedPool, text: str | bytes, name: str = "ana", mode: int = 0o600) -> Path:
    """Put a token into this user's folder."""
    file = pool.configuration.parent / "tokens.d" / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)
    return file


def problems(version: str = INSTALLED) -> list[PoolFinding]:
    return [finding for finding in check_pool(version) if finding.problem]


def the_problem(what: str, *names: object) -> None:
    """Assert that this alone is wrong, and that a cure is named."""
    (finding,) = problems()
    assert finding.what == what
    assert finding.cure
    says(f"{finding.problem}. Cure: {finding.cure}", *names)


def test_a_pool_in_order_has_no_problem(pool: ScriptedPool, capsys: pytest.CaptureFixture[str]) -> None:
    assert problems() == []
    assert main(["farm", "check"]) == 0
    out = capsys.readouterr().out
    for words in (("token ana", "ana@quadbench"), ("permission to submit", "ana@quadbench"), ("devices", "1 ready")):
        assert any(all(word in line for word in words) for line in out.splitlines()), (words, out)
    assert ("condor_ping", "-type", "SCHEDD", "-name", "quadbench@", "-verbose", "WRITE") in pool.ran


def test_every_problem_is_told_with_its_cure_to_people_and_machines(
    pool: ScriptedPool, capsys: pytest.CaptureFixture[str]
) -> None:
    pool.hosts["lab-1"].remove(ROOM)
    keep(pool, token(sub="root@quadbench"), "old")
    assert main(["farm", "check"]) == UserError.exit_code
    assert capsys.readouterr().err.count("Cure: ") == 2
    assert main(["farm", "check", "--json"]) == UserError.exit_code
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert {what for what, finding in findings.items() if finding["problem"]} == {"token old", "builds"}
    assert findings["token ana"]["state"] == "ana@quadbench"


def test_a_host_with_more_devices_than_slots_is_named_with_the_devices_that_have_none(
    pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.hosts["lab-1"] = [phone("z2"), ROOM, phone("R3CX"), phone("z1")]
    use_pool(replace(pool, room=2), monkeypatch)
    (finding,) = problems()
    assert finding.what == "slots of lab-1"
    says(f"{finding.problem}. Cure: {finding.cure}", 2, "z1, z2")


def test_programs_of_htcondor_that_are_missing_are_named(pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_check, "find_program", lambda name: None if name == "condor_dagman" else Path("/usr/bin") / name)
    the_problem("HTCondor", "condor_dagman", "apt-get install condor")


def test_a_pool_that_is_not_configured_is_told(pool: ScriptedPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(pool_check, "find_program", lambda name: Path("/usr/bin") / name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CONDOR_CONFIG", raising=False)
    the_problem("configuration", "quadbench farm init")
    assert pool.ran == []


@pytest.mark.parametrize(
    ("claims", "names"),
    [
        ({"exp": 1_000_000_000}, ("ana@quadbench",)),
        ({"exp": 1e300, "sub": "root@quadbench"}, ("root",)),
        ({"sub": "condor@quadbench"}, ("host",)),
        ({"iss": "another.pool"}, ("another.pool",)),
        ({"iss": None}, ()),
        ({"sub": "\x1b[2J\n" + "x" * 5000, "exp": 1}, ()),
    ],
)
def test_a_token_that_cannot_serve_is_named(claims: dict[str, Any], names: tuple[str, ...], pool: ScriptedPool) -> None:
    keep(pool, token(**claims))
    the_problem("token ana", *names)


def test_a_token_that_expires_later_is_in_order(pool: ScriptedPool) -> None:
    keep(pool, token(exp=time.time() + 3600))
    assert problems() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no token",
        "a.b.c",
        "a.é.c",
        b"\xff.\xff.\xff",
        "a." + base64.urlsafe_b64encode(b"[" * 60_000).decode() + ".c",
        "a." + base64.urlsafe_b64encode(b'{"sub": "ana", "iss": "quadbench", "exp": -1' + b"0" * 4000 + b"}").decode() + ".c",
        token(exp="soon"),
        token(exp=[1]),
        "x" * 2**21,
    ],
    ids=range(10),
)
def test_a_file_that_holds_no_token_is_named_whatever_it_holds(text: str | bytes, pool: ScriptedPool) -> None:
    keep(pool, text, "strange")
    the_problem("token strange", "token")


def test_a_token_that_others_can_read_is_not_read_by_htcondor(pool: ScriptedPool) -> None:
    file = keep(pool, token(), mode=0o640)
    the_problem("token ana", f"chmod 600 '{file}'")


def test_a_token_of_another_user_of_this_machine_is_named(pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    the_problem("token ana", "another user")


def test_what_is_no_file_among_the_tokens_is_named(pool: ScriptedPool) -> None:
    os.mkfifo(pool.configuration.parent / "tokens.d" / "pipe")
    the_problem("token pipe", "file")


def test_a_user_without_a_token_is_told_where_to_get_one(pool: ScriptedPool) -> None:
    (pool.configuration.parent / "tokens.d" / "ana").unlink()
    the_problem("tokens", "quadbench farm token NAME")


def test_a_folder_of_tokens_that_is_missing_or_not_configured_is_named(
    pool: ScriptedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(pool, token()).unlink()
    (pool.configuration.parent / "tokens.d").rmdir()
    the_problem("tokens", "tokens.d", "quadbench farm init")
    monkeypatch.setattr(ScriptedPool, "value", lambda *_: "")
    the_problem("tokens", pool.configuration, "quadbench farm init")


@pytest.mark.parametrize(
    ("method", "error", "what", "cure"),
    [
        ("slots", AWAY, "collector", "condor_master"),
        ("slots", REFUSED, "collector", "quadbench farm token"),
        ("schedd", AWAY, "schedd", "condor_master"),
        ("queue", AWAY, "queue", "SchedLog"),
        ("run", REFUSED, "permission to submit", "quadbench farm token"),
        ("run", AWAY, "permission to submit", "SchedLog"),
    ],
)
def test_a_daemon_that_does_not_answer_or_refuses_ends_the_check(
    method: str, error: QuadbenchError, what: str, cure: str, pool: ScriptedPool
) -> None:
    pool.broken[method] = error
    the_problem(what, cure)
    assert [finding.what for finding in check_pool(INSTALLED)][-1] == what


def test_a_pool_whose_hosts_describe_no_slot_is_told(pool: ScriptedPool) -> None:
    pool.hosts.clear()
    the_problem("devices", "quadbench farm init")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"SlotSeen": 0}, ("lab-1", "HostLog")),
        ({"SlotSeen": "yesterday"}, ("lab-1", "HostLog")),
        ({"SlotReady": False, "SlotWhyNot": "adb says: unauthorized"}, ("unauthorized", "lab-1", "quadbench devices")),
        ({"SlotReady": False, "SlotWhyNot": "R3CX is gone"}, ("R3CX", "lab-1")),
    ],
)
def test_a_slot_that_starts_no_job_is_named_with_its_host(
    change: dict[str, object], names: tuple[str, ...], pool: ScriptedPool
) -> None:
    pool.changes["R3CX"] = change
    the_problem("slot of R3CX", *names)


@pytest.mark.parametrize(
    "change",
    [{"RemoteOwner": "ben@quadbench"}, {"SlotReady": False, "SlotWhyNot": "used by ben@lab-2"}, {"SlotReservedBy": "ben"}],
)
def test_a_device_that_somebody_uses_is_no_problem(change: dict[str, object], pool: ScriptedPool) -> None:
    pool.changes["R3CX"] = change
    assert problems() == []


def test_hosts_with_another_version_are_named(pool: ScriptedPool) -> None:
    pool.hosts["lab-2"] = [phone("R5CY")]
    pool.changes["R5CY"] = {"QuadbenchVersion": "0.0.9"}
    the_problem("versions", "lab-2 (0.0.9)", INSTALLED)


@pytest.mark.parametrize(
    "change", [{"SlotServes": ""}, {"SlotReady": False, "SlotWhyNot": "away"}, {"QuadbenchVersion": "0.0.9"}]
)
def test_a_pool_that_cannot_build_is_told(change: dict[str, object], pool: ScriptedPool) -> None:
    pool.changes["room@lab-1"] = change
    (finding,) = [finding for finding in problems() if finding.what == "builds"]
    says(f"{finding.problem}. Cure: {finding.cure}", "quadbench[quad]")


def test_what_a_host_says_is_shown_as_text(pool: ScriptedPool, capsys: pytest.CaptureFixture[str]) -> None:
    pool.changes["R3CX"] = {"SlotReady": False, "SlotWhyNot": "[red]x[/red]\x1b[2J\n\x07" + "y" * 5000, "Machine": "[b]lab"}
    assert main(["farm", "check"]) == UserError.exit_code
    err = capsys.readouterr().err
    assert "[red]x[/red]" in err
    assert "\x1b[2J" not in err
    assert "\x07" not in err
    assert len(err) < 3000
