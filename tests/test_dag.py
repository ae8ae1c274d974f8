"""A run as a DAG: its texts mean to HTCondor what they mean here, and it goes to the head with this user's tokens."""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.scripted_pool import ScriptedPool, pool_with_token
from support.sentences import raising

from quadbench.errors import UserError
from quadbench.farm.condor import Ad
from quadbench.farm.dag import dag_text, submit_dag
from quadbench.farm.job import Job, JobKind
from quadbench.farm.slots import device_need, encoded, requirement
from quadbench.host import find_program

RUN = "20261129-120000-abcd"
PLAIN = Job(
    id=1,
    run_id=RUN,
    version="0.1.0",
    kind=JobKind.MEASURE,
    needs=device_need("R3CX"),
    owner="ana@lab-1",
    submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
    affinity="b-1",
)
HOSTILE = [
    'a "quoted" name',
    "back\\slash \\",
    'both \\"',
    "it's, 100%25 %s",
    "$(job) $$(Name) $ENV(HOME)",
    "x = y && true #",
    "ünï 🙂",
    "😀" * 290,
]
needs_htcondor = pytest.mark.skipif(
    find_program("condor_submit") is None, reason="HTCondor is not installed: apt-get install --no-install-recommends condor"
)


def variables(text: str) -> dict[str, dict[str, str]]:
    """Return the variables of a DAG's nodes, as DAGMan reads them."""
    nodes = {}
    for node, rest in re.findall(r"^VARS (\w+) (.*)$", text, re.MULTILINE):
        pairs = re.findall(r'(\w+)="((?:\\.|[^"\\])*)"', rest)
        assert rest == " ".join(f'{name}="{value}"' for name, value in pairs)
        nodes[node] = {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}
    return nodes


def hostile(text: str, number: int = 1) -> Job:
    return replace(PLAIN, id=number, needs=device_need(text), owner=text, affinity=text)


def edges(text: str) -> list[str]:
    return re.findall(r"^PARENT .*$", text, re.MULTILINE)


def test_a_dag_has_a_node_for_each_job_and_an_edge_from_each_that_it_needs() -> None:
    jobs = [PLAIN, replace(PLAIN, id=2), replace(PLAIN, id=7, after=(1, 2)), replace(PLAIN, id=9, after=(7,))]
    text = dag_text(jobs)
    assert re.findall(r"^JOB .*$", text, re.MULTILINE) == [f"JOB job{job.id} attempt" for job in jobs]
    assert edges(text) == ["PARENT job1 job2 CHILD job7", "PARENT job7 CHILD job9"]
    assert list(variables(text)) == ["job1", "job2", "job7", "job9"]
    assert variables(text)["job7"] == {
        "job": "7",
        "run": RUN,
        "need": "device%20R3CX",
        "owner": "ana@lab-1",
        "loads": "b-1",
        "lease": "120",
        "requirement": requirement(PLAIN.needs, "0.1.0"),
    }


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_a_node_s_texts_are_those_of_its_job_whatever_they_are(text: str) -> None:
    job = hostile(text)
    written = dag_text([job])
    assert len(written.splitlines()) == len(dag_text([PLAIN]).splitlines())
    (values,) = variables(written).values()
    assert [unquote(values[name]) for name in ("need", "owner", "loads")] == [job.needs, job.owner, job.affinity]
    assert values["requirement"] == requirement(job.needs, job.version)
    assert not set("$'\\") & set("".join(values.values()))


# With HTCondor's own programs


def described(text: str, folder: Path, *, node: str = "job1") -> dict[str, str]:
    """Return the ad of a node's job, as condor_submit makes it of the DAG's description and the node's variables."""
    body = text.partition("{\n")[2].partition("\n}\n")[0]
    given = "".join(f"{name} = {value}\n" for name, value in variables(text)[node].items())
    return submitted(f"{given}{body}\nqueue\n", folder)


def submitted(description: str, folder: Path) -> dict[str, str]:
    """Return the ad of the job that condor_submit makes of a submit description, without a pool."""
    (folder / "condor_config").write_text("RELEASE_DIR = /usr\nLOCAL_CONFIG_FILE =\nLOCAL_CONFIG_DIR =\n")
    (folder / "a.sub").write_text(description)
    command = ["condor_submit", "-dry-run", "ad", "a.sub"]
    settings = {**os.environ, "CONDOR_CONFIG": str(folder / "condor_config")}
    ended = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    return dict(line.split("=", 1) for line in (folder / "ad").read_text().splitlines() if "=" in line)


@needs_htcondor
def test_condor_submit_takes_a_node_s_description(tmp_path: Path) -> None:
    ad = described(dag_text([PLAIN]), tmp_path)
    assert (ad["QuadbenchJob"], ad["QuadbenchRun"]) == ("1", f'"{RUN}"')
    assert ad["Cmd"] == '"$$(QuadbenchPython)"'
    assert ad["Arguments"] == '"-P -m quadbench farm attempt .job.ad"'
    assert ad["OnExitHold"] == "ExitBySignal || (ExitCode =!= 0 && ExitCode =!= 65)"
    assert (ad["KillSig"], ad["RemoveKillSig"], ad["JobMachineAttrs"]) == ('"SIGINT"', '"SIGINT"', '"SlotDevice"')
    assert ad["Requirements"].startswith('(stringListMember("device%20R3CX",TARGET.SlotServes)')
    assert "pow(2,(NumHolds ?: 1) - 1)" in ad["PeriodicRelease"]


@needs_htcondor
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_condor_submit_takes_any_text(tmp_path: Path, text: str) -> None:
    job = hostile(text)
    ad, plain = described(dag_text([job]), tmp_path), described(dag_text([PLAIN]), tmp_path)
    named = {name: ad[name] for name in ("QuadbenchNeed", "QuadbenchOwner", "QuadbenchLoads")}
    assert [unquote(json.loads(value)) for value in named.values()] == [job.needs, job.owner, job.affinity]
    assert ad["Requirements"] == plain["Requirements"].replace(encoded(PLAIN.needs), encoded(job.needs))
    changing = {*named, "Requirements", "QDate", "EnteredCurrentStatus", "Iwd"}
    assert {name: ad[name] for name in ad if name not in changing} == {
        name: plain[name] for name in plain if name not in changing
    }


def nodes_read(text: str, folder: Path) -> str:
    """Return what DAGMan says of a DAG that it reads without a pool."""
    (folder / "run.dag").write_text(text)
    (folder / "condor_config").write_text(
        f"RELEASE_DIR = /usr\nLOCAL_DIR = {folder}\nLOG = {folder}\nLOCAL_CONFIG_FILE =\nLOCAL_CONFIG_DIR =\n"
        "COLLECTOR_HOST = 127.0.0.1:9\nDAGMAN_MAX_SUBMIT_ATTEMPTS = 1\nDAGMAN_USER_LOG_SCAN_INTERVAL = 1\nDAGMAN_USE_STRICT = 0\n"
    )
    version = subprocess.run(["condor_version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    command = ["condor_dagman", "-p", "0", "-f", "-l", ".", "-Lockfile", "run.lock", "-Dag", "run.dag", "-AutoRescue", "0"]
    command += ["-AllowVersionMismatch", "-CsdVersion", version, "-dagman", "/usr/bin/condor_dagman", "-suppress_notification"]
    if os.geteuid() == 0:
        command = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--", *command]
    log = folder / "dagman.out"
    log.unlink(missing_ok=True)
    own = {"CONDOR_CONFIG": str(folder / "condor_config"), "_CONDOR_DAGMAN_LOG": str(log)}
    program = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **own}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while program.poll() is None and not (log.exists() and " nodes total" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    program.kill()
    program.wait()
    return log.read_text()


@needs_htcondor
def test_dagman_reads_all_nodes_and_edges(tmp_path: Path) -> None:
    jobs = [hostile(text, number) for number, text in enumerate(HOSTILE, 1)]
    last = replace(PLAIN, id=99, after=tuple(job.id for job in jobs))
    said = nodes_read(dag_text([*jobs, last]), tmp_path)
    assert f"Dag contains {len(jobs) + 1} total jobs" in said
    assert "ERROR: run.dag" not in said
    assert "ERROR: run.dag" in nodes_read(dag_text([PLAIN]).replace('need="', 'need="a"'), tmp_path)


# What goes to the head


@dataclass(frozen=True, kw_only=True)
class KeepingPool(ScriptedPool):
    """A pool that keeps what a submission brings, and whose schedd says what a test wants."""

    kept: dict[str, str] = field(default_factory=dict)
    head: Mapping[str, object] = field(default_factory=dict)
    token_folder: str | None = None

    def schedd(self) -> Ad:
        return {**super().schedd(), **self.head}

    def submit(self, folder: Path, description: str) -> None:
        self.kept.update({str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()})
        self.kept["description"] = (folder / description).read_text()

    def value(self, name: str) -> str:
        return super().value(name) if self.token_folder is None else self.token_folder


def keeping(folder: Path, **changes: object) -> KeepingPool:
    pool_with_token(folder)
    return KeepingPool(configuration=folder / "condor_config", **changes)  # type: ignore[arg-type]


@needs_htcondor
def test_a_dag_goes_to_the_head_with_the_user_s_tokens(tmp_path: Path) -> None:
    head = {
        "QuadbenchConfiguration": "/a lab/condor_config",
        "CondorVersion": "$CondorVersion: 23.9.6+x $",
    }
    pool = keeping(tmp_path / "pool", head=head)
    submit_dag(pool, RUN, [PLAIN])
    assert set(pool.kept) == {"run.dag", "run.sub", "tokens.d/ana", "description"}
    assert (pool.kept["run.dag"], pool.kept["tokens.d/ana"]) == (dag_text([PLAIN]), "a.b.c")
    ad = submitted(pool.kept["run.sub"], tmp_path)
    assert (ad["JobUniverse"], ad["Cmd"], ad["QuadbenchRun"]) == ("7", '"/usr/bin/condor_dagman"', f'"{RUN}"')
    assert "CONDOR_CONFIG=/a' 'lab/condor_config " in ad["Environment"]
    assert "-CsdVersion $CondorVersion:' '23.9.6+x' '$ " in ad["Arguments"]
    assert ad["TransferInput"] == '"run.dag,tokens.d"'


def test_without_a_token_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    (tmp_path / "empty").mkdir()
    for number, name in enumerate(("", "empty", "gone", "a-file")):
        named = str(tmp_path / name) if name else ""
        pool = keeping(tmp_path / f"pool-{number}", token_folder=named)
        with raising(UserError, "token", f"quadbench farm {'token NAME' if named else 'init'}", snapshot=False):
            submit_dag(pool, RUN, [PLAIN])
        assert pool.kept == {}, named


def test_tokens_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    pool = keeping(tmp_path / "pool")
    (tmp_path / "pool" / "tokens.d" / "gone").symlink_to("nowhere")
    with raising(UserError, "tokens.d", snapshot=False):
        submit_dag(pool, RUN, [PLAIN])
    assert pool.kept == {}


@pytest.mark.parametrize("name", ["QuadbenchConfiguration", "CondorVersion"])
@pytest.mark.parametrize("value", [None, 3, "", "a\nqueue", 'a" b', "a' b", "$(Name)", "$ENV(HOME)", "x" * 501])
def test_a_head_that_quadbench_has_not_set_up_gets_nothing(tmp_path: Path, name: str, value: object) -> None:
    pool = keeping(tmp_path / "pool", head={name: value})
    with raising(UserError, "not set up by quadbench"):
        submit_dag(pool, RUN, [PLAIN])
    assert pool.kept == {}


@pytest.mark.parametrize("run_id", ['run"', "run a", "run\nqueue", "$(run)", "läuf"])
def test_a_run_s_id_is_plain(tmp_path: Path, run_id: str) -> None:
    pool = keeping(tmp_path / "pool")
    with raising(UserError, snapshot=False):
        submit_dag(pool, run_id, [PLAIN])
    assert pool.kept == {}
