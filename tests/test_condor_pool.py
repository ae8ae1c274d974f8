"""A pool for tests starts, has each owner's jobs done once, ends a removed job with its children, and leaves nothing.

Two ways of HTCondor that a farm needs are tried too: a DAG that its owner sends from elsewhere, slots that a program describes.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.condor_pool import CondorPool, running_pool

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
FIRST_JOB = """
executable = /bin/sh
arguments = "-c 'echo $(word) $$(PhoneSerial) >> done'"
transfer_executable = False
should_transfer_files = NO
requirements = PhoneChip == "SM8750"
queue
"""
CHILDREN = """
executable = /bin/sh
arguments = "-c 'sleep 777 & setsid sleep 777 & echo $! > begun; wait'"
transfer_executable = False
should_transfer_files = NO
queue
"""


# DAGMan runs at the schedd's host: it needs the pool's configuration there, and the owner's token to submit nodes as the owner.
DAGMAN = """
universe = scheduler
executable = /usr/bin/condor_dagman
transfer_executable = False
arguments = "-p 0 -f -l . -Lockfile dag.lock -Dag dag -AutoRescue 1 -DoRescueFrom 0 -AllowVersionMismatch -CsdVersion '{version}'"
environment = "CONDOR_CONFIG={configuration} _CONDOR_SEC_TOKEN_DIRECTORY=tokens.d _CONDOR_DAGMAN_USE_STRICT=0"
transfer_input_files = dag,tokens.d
on_exit_remove = ExitCode =!= undefined && ExitCode <= 2
queue
"""
DAG = """
SUBMIT-DESCRIPTION node {{
  executable = {script}
  arguments = $(code)
  transfer_executable = False
  should_transfer_files = NO
  on_exit_hold = ExitCode =?= 75 && NumJobStarts < 3
  on_exit_hold_subcode = 75
  periodic_release = HoldReasonSubCode =?= 75
}}
JOB first node
VARS first code="0"
JOB fails node
VARS fails code="75"
JOB behind node
VARS behind code="0"
PARENT first CHILD fails
PARENT fails CHILD behind
"""
NODE = """\
#!/bin/sh
value() { grep "^$1 = " "$_CONDOR_JOB_AD" | sed 's/.* = //'; }
echo "$(value DAGNodeName) $(value NumShadowStarts) $(value Owner)" >> FOLDER/attempts
exit "$1"
"""
SLOTS = """\
#!/bin/sh
number=0
while true; do
  number=$((number + 1))
  for slot in 1 2; do
    echo "SlotId = $slot"
    echo "Described = $number"
    echo "IsReady = $([ $slot = 2 ] && echo true || echo false)"
    echo "- slot$slot"
  done
  sleep 1
done
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[CondorPool]:
    """A pool of two phones, of which one has the chip that the jobs need."""
    slots = [{"PhoneSerial": "R1", "PhoneChip": "SM8650"}, {"PhoneSerial": "R2", "PhoneChip": "SM8750"}]
    with running_pool(tmp_path / "pool", slots=slots) as running:
        yield running


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def commands() -> list[str]:
    """Return the command line of every process of this machine."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines


def test_each_of_two_owners_jobs_runs_once_at_the_device_that_it_needs(pool: CondorPool) -> None:
    ids = [pool.submit(FIRST_JOB.replace("$(word)", owner), owner)[0] for owner in ("ann", "ben")]
    assert ids == ["1.0", "2.0"]
    wait_until(lambda: not pool.jobs("ClusterId"))
    assert sorted((pool.folder / "done").read_text().splitlines()) == ["ann R2", "ben R2"]
    ended = pool.history("Owner", "NumJobStarts", "ExitCode")
    assert sorted((job["Owner"], job["NumJobStarts"], job["ExitCode"]) for job in ended) == [("ann", 1, 0), ("ben", 1, 0)]


def test_a_removed_job_ends_with_its_children_and_only_its_owner_may_remove_it(pool: CondorPool) -> None:
    (job,) = pool.submit(CHILDREN, "ann")
    wait_until((pool.folder / "begun").exists)
    with pytest.raises(AssertionError, match="Permission denied"):
        pool.tool("condor_rm", job, owner="ben")
    assert [process.name for process in pool.processes()].count("sleep") == 2
    pool.tool("condor_rm", job, owner="ann")
    wait_until(lambda: "sleep" not in {process.name for process in pool.processes()})
    wait_until(lambda: not pool.jobs("ClusterId"))


def test_a_pool_ends_with_its_jobs_and_leaves_nothing(tmp_path: Path) -> None:
    with running_pool(tmp_path / "pool", slots=[{}]) as pool:
        pool.submit(CHILDREN.replace("777", "778"), "ann")
        wait_until((pool.folder / "begun").exists)
        pids = [process.pid for process in pool.processes()]
        names = {daemon.name for daemon in pool.daemons()}
        assert names > {"condor_master", "condor_schedd", "condor_startd", "condor_shadow", "condor_starter"}
        assert all(daemon.rss_bytes > 0 for daemon in pool.daemons())
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert not [line for line in commands() if "sleep 778" in line or str(tmp_path) in line]


def test_a_dag_sent_from_elsewhere_runs_as_its_owner_and_tries_a_failed_node_three_times(tmp_path: Path) -> None:
    settings = {"DAGMAN_USER_LOG_SCAN_INTERVAL": "1", "PERIODIC_EXPR_INTERVAL": "2"}
    with running_pool(tmp_path / "pool", slots=[{}, {}], settings=settings) as pool:
        desk, script = pool.folder / "desk", pool.folder / "node"
        desk.mkdir()
        script.write_text(NODE.replace("FOLDER", str(pool.folder)))
        script.chmod(0o755)
        (desk / "dag").write_text(DAG.format(script=script))
        configuration = pool.folder / "condor_config"
        version = pool.tool("condor_version").splitlines()[0]
        (desk / "submit").write_text(DAGMAN.format(configuration=configuration, version=version))
        shutil.copytree(pool.tokens_of("ann"), desk / "tokens.d")
        pool.tool("condor_submit", "-terse", "-name", "quadbench@", "-spool", "submit", owner="ann", folder=desk)
        wait_until(lambda: [job for job in pool.jobs("JobStatus", "JobUniverse") if job["JobStatus"] == 4])  # DAGMan has ended
        attempts = (pool.folder / "attempts").read_text().splitlines()
        assert attempts == [f'"{node}" {start} "ann"' for node, start in (("first", 1), ("fails", 1), ("fails", 2), ("fails", 3))]
        (dagman,) = pool.jobs("ExitCode")
        assert dagman["ExitCode"] != 0


def test_a_program_describes_slots_while_it_runs_and_a_slot_that_is_not_ready_starts_no_job(tmp_path: Path) -> None:
    script = tmp_path / "slots"
    script.write_text(SLOTS)
    script.chmod(0o755)
    settings = {
        "STARTD_CRON_JOBLIST": "SLOTS",
        "STARTD_CRON_SLOTS_EXECUTABLE": str(script),
        "STARTD_CRON_SLOTS_MODE": "WaitForExit",
        "STARTD_CRON_SLOTS_PERIOD": "1",
        "START": "IsReady =?= True",
        "UPDATE_INTERVAL": "1",
    }
    with running_pool(tmp_path / "pool", slots=[{"PhoneSerial": "R1"}, {"PhoneSerial": "R2"}], settings=settings) as pool:
        wait_until(lambda: all(slot.get("Described", 0) > 2 for slot in pool.slots("Described")))  # a program that goes on
        pool.submit(FIRST_JOB.replace("$(word)", "ann").replace('PhoneChip == "SM8750"', "True") * 2, "ann")
        wait_until(lambda: not pool.jobs("ClusterId"))
        assert (pool.folder / "done").read_text().splitlines() == ["ann R2"] * 2
