"""`quadbench farm host` describes a host's devices to HTCondor until it is stopped, and `farm drain` takes a host out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.scripted_pool import ScriptedPool, phone, pool_with_token, use_pool
from support.sentences import says

from quadbench.cli import main
from quadbench.errors import ServiceError, UserError
from quadbench.farm.store.opening import STORE_VARIABLE
from quadbench.host import host_name
from quadbench.results.engine import DATABASE_VARIABLE


def described(tmp_path: Path, *words: str) -> tuple[list[dict[str, str]], subprocess.Popen[str]]:
    """Start the command, and return the slots that it describes first, and the process."""
    own = {
        DATABASE_VARIABLE: f"sqlite:///{tmp_path}/farm.sqlite",
        STORE_VARIABLE: "s3://lab/q",
        "ANDROID_ADB_SERVER_PORT": "5099",
    }
    environment = {**os.environ, **own}
    command = [sys.executable, "-m", "quadbench", "farm", "host", *words, "--results", str(tmp_path / "results")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    slots, lines = list[dict[str, str]](), list[str]()
    for line in process.stdout:
        if line.startswith("- "):
            slots.append(dict(one.split(" = ", 1) for one in lines))
            lines = []
            if line == f"- slot{words[words.index('--slots') + 1]}\n":
                break
        else:
            lines.append(line.rstrip("\n"))
    return slots, process


def test_a_host_describes_every_slot_and_which_jobs_each_may_start(tmp_path: Path) -> None:
    slots, process = described(tmp_path, "--devices", "local,virtual:s25", "--slots", "5")
    try:
        assert [slot["SlotId"] for slot in slots] == ["1", "2", "3", "4", "5"]
        devices = {slot["SlotDevice"].strip('"'): slot for slot in slots}
        local, virtual = devices[f"local@{host_name()}"], devices[f"virtual-s25@{host_name()}"]
        assert (local["SlotReady"], local["SlotAddress"], local["SlotReservedBy"]) == ("true", '"local"', "undefined")
        assert "wish%20profile%3Ds25" in virtual["SlotServes"]
        assert virtual["Label_profile"] == '"s25"'
        assert {slot["QuadbenchStore"] for slot in slots} == {'"s3://lab/q"'}  # which is not opened
        unused = devices["undefined"]
        assert (unused["SlotReady"], unused["SlotServes"]) == ("false", '""')
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("devices", ["R3CX", "virtual:none", "local;x"])
def test_a_host_with_a_device_that_it_cannot_be_given_is_refused(
    devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{tmp_path}/farm.sqlite")
    assert main(["farm", "host", "--devices", devices]) == UserError.exit_code
    says(capsys.readouterr().err, devices.removeprefix("virtual:"))


def test_a_host_with_more_devices_than_slots_describes_those_that_have_one_and_names_the_others(tmp_path: Path) -> None:
    (slot,), process = described(tmp_path, "--devices", "local,virtual:s25", "--slots", "1")
    try:
        assert (slot["SlotDevice"], slot["SlotReady"]) == (f'"local@{host_name()}"', "true")
        assert f"virtual-s25@{host_name()}" in slot["SlotProblem"]
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedPool:
    pool = pool_with_token(tmp_path / "pool", [phone("R3CX")])
    pool.hosts["lab-2"] = [phone("R5CY")]
    (pool.configuration.parent / "host-tokens.d").mkdir()
    (pool.configuration.parent / "host-tokens.d" / "head").write_text("a.b.c")
    use_pool(pool, monkeypatch)
    return pool


@pytest.mark.parametrize(("words", "option"), [((), "-graceful"), (("--undo",), "-cancel")])
def test_a_host_is_drained_by_its_name_and_takes_jobs_again(
    words: tuple[str, ...], option: str, pool: ScriptedPool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["farm", "drain", "lab-2", *words]) == 0
    says(capsys.readouterr().out, "lab-2")
    ((tool, *rest),) = pool.ran
    assert (tool, rest[0]) == ("condor_drain", option)
    assert rest[1].endswith("@lab-2")
    main(["farm", "drain", "lab-2", *words, "--json"])
    assert json.loads(capsys.readouterr().out) == {"host": "lab-2", "draining": not words}


@pytest.mark.parametrize("host", ["lab-3", "lab-2\x1b[2J", "slot1@lab-2"])
def test_a_host_that_the_pool_does_not_have_is_not_drained(
    host: str, pool: ScriptedPool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["farm", "drain", host]) == UserError.exit_code
    says(capsys.readouterr().err, "lab-1, lab-2")
    assert pool.ran == []


def test_a_desk_without_a_host_s_token_is_told_who_may_drain(pool: ScriptedPool, capsys: pytest.CaptureFixture[str]) -> None:
    (pool.configuration.parent / "host-tokens.d" / "head").unlink()
    assert main(["farm", "drain", "lab-2"]) == UserError.exit_code
    says(capsys.readouterr().err, "token")
    assert pool.ran == []


def test_a_pool_that_does_not_answer_drains_nothing(pool: ScriptedPool, capsys: pytest.CaptureFixture[str]) -> None:
    pool.broken["run"] = ServiceError("the pool does not answer: condor_drain: no route")
    assert main(["farm", "drain", "lab-1"]) == ServiceError.exit_code
    out, err = capsys.readouterr()
    assert (out, "no route" in err) == ("", True)
