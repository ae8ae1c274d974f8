"""A pool for tests starts, has each owner's jobs done once, ends a removed job with its children, and leaves nothing."""

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
