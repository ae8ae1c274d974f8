"""`quadbench farm init`, `token` and `unit` set up each machine of a pool, keep its keys, and refuse what no pool can have."""

import base64
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support.sentences import reads, says

from quadbench.cli import main
from quadbench.errors import MissingDependencyError, UserError
from quadbench.farm import condor
from quadbench.farm.condor import Condor, pool_folder
from quadbench.farm.pool_check import check_pool
from quadbench.farm.pool_setup import PoolRole, PoolSettings, remaining_steps, systemd_unit, write_pool
from quadbench.results.engine import DATABASE_VARIABLE, Source, has_tables

needs_condor = pytest.mark.skipif(not shutil.which("condor_token_create"), reason="HTCondor is not installed")
Said = Callable[..., tuple[int, str, str]]
LAB = ("--head", "lab-1")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run a command of `farm` as the ordinary user ana, with a home, a database and a store of her own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "store").mkdir()
    settings = {"HOME": tmp_path / "home", "LOGNAME": "ana", DATABASE_VARIABLE: f"sqlite:///{tmp_path}/farm.sqlite"}
    for name, value in {**settings, "QUADBENCH_STORE": tmp_path / "store"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CONDOR_CONFIG", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["farm", *words, *(() if "--results" in words else ("--results", str(tmp_path / "results")))])
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return call


def setting(name: str) -> str:
    """Return a setting as HTCondor itself reads it."""
    return Condor(configuration=pool_folder() / "condor_config").value(name)


def claims(token: str) -> dict[str, Any]:
    part = token.strip().split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "words", [(), LAB, (*LAB, "--role", "head"), (*LAB, "--role", "desk"), (*LAB, "--role", "head", "--role", "host")]
)
def test_a_pool_of_root_is_refused_in_every_role(words: tuple[str, ...], said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    code, _, err = said("init", *words)
    assert code == UserError.exit_code
    says(err, "root", "sudo -u quadbench")
    assert not pool_folder().exists()


@needs_condor
@pytest.mark.parametrize(
    ("words", "roles", "daemons"),
    [
        ((), ["head", "host"], "MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD"),
        (LAB, ["host"], "MASTER STARTD"),
        ((*LAB, "--role", "head"), ["head"], "MASTER COLLECTOR NEGOTIATOR SCHEDD"),
        ((*LAB, "--role", "host", "--role", "head"), ["head", "host"], "MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD"),
        ((*LAB, "--role", "desk"), ["desk"], "MASTER"),
    ],
)
def test_each_role_gets_its_daemons_and_only_a_head_the_key(
    words: tuple[str, ...], roles: list[str], daemons: str, said: Said
) -> None:
    code, out, _ = said("init", *words, "--json")
    told = json.loads(out)
    assert (code, told["roles"], told["configuration"]) == (0, roles, str(pool_folder() / "condor_config"))
    assert setting("DAEMON_LIST") == daemons
    assert setting("COLLECTOR_HOST") == ("lab-1:9618" if words else "127.0.0.1:9618")
    is_head = "head" in roles
    assert (pool_folder() / "keys" / "POOL").exists() == is_head
    assert (pool_folder() / "describe-slots").exists() == ("host" in roles)
    names = [claims(file.read_text())["sub"] for file in sorted(pool_folder().glob("*tokens.d/*"))]
    assert names == (["condor@quadbench", "ana@quadbench"] if is_head else [])
    reads([line.replace(str(pool_folder()), "POOL") for line in told["steps"]])


@needs_condor
def test_only_the_user_can_read_the_key_the_tokens_and_what_the_daemons_keep(said: Said) -> None:
    said("init")
    secret = [pool_folder() / "keys" / "POOL", *pool_folder().glob("*tokens.d/*")]
    assert len(secret) == 3
    assert {oct(path.stat().st_mode & 0o777) for path in secret} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in pool_folder().iterdir() if path.is_dir()} == {"0o700"}


@needs_condor
def test_a_pool_that_is_set_up_again_has_new_settings_and_the_same_key_and_tokens(said: Said) -> None:
    said("init")
    kept = [pool_folder() / "keys" / "POOL", *pool_folder().glob("*tokens.d/*")]
    before = [path.read_bytes() for path in kept]
    own = pool_folder() / "condor_config.local"
    own.write_text("NEGOTIATOR_INTERVAL = 7\n")
    assert said("init", "--port", "9700", "--slots", "3")[0] == 0
    assert [path.read_bytes() for path in kept] == before
    assert (setting("SHARED_PORT_PORT"), setting("NUM_SLOTS_TYPE_1"), setting("NEGOTIATOR_INTERVAL")) == ("9700", "3", "7")


@needs_condor
def test_a_pool_that_was_begun_without_htcondor_gets_its_tokens_later(said: Said) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(condor, "find_program", lambda _: None)
        code, _, err = said("init")
    assert code == MissingDependencyError.exit_code
    says(err, "condor_token_create", "apt-get install condor")
    assert said("init")[0] == 0
    assert all(file.read_text().count(".") == 2 for file in pool_folder().glob("*tokens.d/*"))
    assert len(list(pool_folder().glob("*tokens.d/*"))) == 2


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--head", "lab 1"), "lab 1"),
        (("--head", "lab-1\nALLOW_WRITE = *"), "ALLOW_WRITE"),
        (("--head", "$(LOG)"), "$(LOG)"),
        (("--head", "-lab"), "--head"),
        (("--head", "a" * 300), "aaa"),
        (("--results", "/a folder"), "/a folder"),
        (("--results", "/a\nDAEMON_LIST = MASTER"), "DAEMON_LIST"),
        (("--results", "/a'b"), "/a'b"),
        (("--results", "/a$(LOG)"), "/a$(LOG)"),
        (("--devices", "local;touch /tmp/x"), "local;touch"),
        (("--devices", "R3CX"), "R3CX"),
        (("--devices", "virtual:none"), "none"),
        (("--devices", "local,local"), "local"),
        (("--devices", "virtual:s25,virtual:s25?target=litert"), "virtual-s25"),
        (("--slots", "0"), "'0' is not a whole number from 1 to 1000"),
        (("--port", "65536"), "'65536' is not a whole number from 1 to 65535"),
        (("--role", "desk"), "--head HOST"),
        ((*LAB, "--role", "desk", "--devices", "local"), "--role host"),
        ((*LAB, "--role", "worker"), "worker"),
    ],
)
def test_a_setting_that_no_pool_can_have_is_refused_by_name_before_anything_is_written(
    words: tuple[str, ...], name: str, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code, _, err = said("init", *words)
    except SystemExit as left:  # argparse
        code, err = left.code, capsys.readouterr().err  # type: ignore[assignment]
    assert (code, name in err) == (UserError.exit_code, True), err
    assert not pool_folder().exists()


@needs_condor
def test_devices_that_are_given_are_described_by_the_program_that_the_startd_runs(said: Said, tmp_path: Path) -> None:
    said("init", "--devices", " local, virtual:s25", "--slots", "3")
    words = shlex.split((pool_folder() / "describe-slots").read_text().splitlines()[-1])
    assert words[0] == "exec"
    given = ["--slots", "3", "--devices", "local,virtual:s25"]
    assert words[words.index("farm") :][: len(given) + 2] == ["farm", "host", *given]
    assert str(tmp_path / "results") in words


@needs_condor
@pytest.mark.parametrize("hostile", ["a'b; touch x", 'a"b', "a\nb", "$(touch x)", "`touch x`"])
def test_an_option_of_the_program_is_one_word_of_a_shell(hostile: str, said: Said, tmp_path: Path) -> None:
    assert callable(said)
    settings = PoolSettings(roles=(PoolRole.HOST,), head="lab-1", results=tmp_path, words=("--devices", hostile))
    write_pool(pool_folder(), settings)
    program = (pool_folder() / "describe-slots").read_text()
    words = shlex.split(program.partition("\n")[2])
    assert words[words.index("--devices") + 1] == hostile


def test_a_user_whose_name_no_token_can_have_cannot_be_head(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "Condor")
    assert said("init")[0] == UserError.exit_code
    assert not pool_folder().exists()


def test_a_lab_without_a_common_database_is_refused(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE)
    code, _, err = said("init", *LAB)
    assert code == UserError.exit_code
    says(err, f"${DATABASE_VARIABLE}")
    assert not pool_folder().exists()


@needs_condor
def test_a_farm_is_begun_and_what_was_there_is_said(
    database: Source, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{database}" if isinstance(database, Path) else database)
    monkeypatch.delenv("QUADBENCH_STORE")
    first = said("init", "--results", str(tmp_path / "results"))[1]
    monkeypatch.setenv("QUADBENCH_STORE", str(tmp_path / "store"))
    second = said("init", "--results", str(tmp_path / "results"))[1]
    for text, words in ((first, ("were created", "$QUADBENCH_STORE")), (second, ("exist", str(tmp_path / "store")))):
        assert all(word in text.replace("export QUADBENCH_STORE", "$QUADBENCH_STORE") for word in words), text
    assert has_tables(database)
    told = json.loads(said("init", "--json")[1])
    assert told["store"] == str(tmp_path / "store")


@needs_condor
def test_what_is_left_to_do_is_said_and_is_in_order_afterwards(said: Said) -> None:
    _, out, _ = said("init")
    says(out, "condor_master", "quadbench farm check")
    findings = list(islice(check_pool("0.1.0"), 2))
    assert [one.what for one in findings] == ["HTCondor", "configuration"]
    assert not any(one.problem for one in findings)


def test_a_port_of_its_own_is_named_to_the_other_machines(tmp_path: Path) -> None:
    settings = PoolSettings(roles=(PoolRole.HEAD,), head="lab-1", port=9700, results=tmp_path)
    steps = remaining_steps(Condor(configuration=tmp_path / "condor_config"), settings)
    assert len([step for step in steps if "farm init --head lab-1 --port 9700" in step]) == 2


def test_steps_that_are_done_are_not_named_again(tmp_path: Path) -> None:
    for name in ("tokens.d", "host-tokens.d"):
        (tmp_path / name).mkdir()
    settings = PoolSettings(roles=(PoolRole.HOST,), head="lab-1", results=tmp_path)
    before = remaining_steps(Condor(configuration=tmp_path / "condor_config"), settings)
    (tmp_path / "host-tokens.d" / "head").write_text("a.b.c")
    (tmp_path / "tokens.d" / "ana").write_text("a.b.c")
    after = remaining_steps(Condor(configuration=tmp_path / "condor_config"), settings)
    assert len([step for step in before if "token" in step]) == 4
    assert not [step for step in after if "token" in step]
    assert set(after) < set(before)


@needs_condor
def test_a_token_is_for_a_person_or_a_host_and_may_expire(said: Said) -> None:
    said("init")
    for name in ("ben", "a.b-c_1", "A" * 64):
        assert claims(said("token", name)[1])["sub"] == f"{name}@quadbench"
    assert "exp" not in claims(said("token", "ben")[1])
    told = json.loads(said("token", "--host", "--days", "2", "--json")[1])
    assert (told["name"], claims(told["token"])["sub"]) == ("condor", "condor@quadbench")
    assert 1.9 < (claims(told["token"])["exp"] - time.time()) / 86_400 <= 2.1


@needs_condor
def test_a_token_with_a_name_that_cannot_be_is_refused(said: Said) -> None:
    said("init")
    for words in ((), ("ben", "--host"), ("ROOT",), ("condor",), ("a b",), ("../x",), ("a@b",), ("x" * 65,), ("a\nb",)):
        code, out, err = said("token", *words)
        assert (code, out) == (UserError.exit_code, "")
        says(err, words[0][:20].replace("\n", "\\n") if len(words) == 1 else "quadbench farm token NAME")


def test_tokens_are_made_only_at_the_head(said: Said) -> None:
    says(said("token", "ben")[2], "quadbench farm init")
    said("init", *LAB, "--role", "desk")
    code, out, err = said("token", "ben")
    assert (code, out) == (UserError.exit_code, "")
    says(err, "head")


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path, said: Said) -> None:
    out = said("unit")[1]
    assert "KillSignal=SIGTERM\n" in out
    assert "TimeoutStopSec=3600\n" in out
    says([line for line in out.splitlines() if line.startswith("#")], "quadbench farm init", "QUADBENCH_STORE")
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "quadbench-farm.service"
    unit.write_text(systemd_unit("daemon").replace("/usr/sbin/condor_master", "/bin/true"))
    result = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert str(unit) not in result.stderr
    assert unit.name not in result.stderr


def test_a_unit_is_for_a_user_that_can_be(said: Said) -> None:
    for user in ("me\nExecStartPre=/bin/false", "Ana", "-a", "x" * 40, "%u"):
        code, out, err = said("unit", f"--user={user}")
        assert (code, out, "is no user's name" in err) == (UserError.exit_code, "", True)
