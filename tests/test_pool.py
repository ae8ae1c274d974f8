"""A real pool of one machine: jobs run once, are tried again, cancelled and settled, and strangers get nothing."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.personal_pool import OWNER, PersonalPool, personal_pool
from support.scripted_jobs import Script
from support.sentences import raising
from support.stored_records import query

from quadbench.devices.lab.selection import Wish
from quadbench.errors import QuadbenchError, UserError
from quadbench.farm.condor import Condor
from quadbench.farm.dag import submit_dag
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.pool_setup import make_token
from quadbench.farm.slots import device_need, read_slots, wish_need
from quadbench.results.engine import open_engine

pytestmark = pytest.mark.xdist_group("pool")
PHONES = 3
ANY = wish_need(Wish(word="s25", key=None, value="s25", count=1))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersonalPool]:
    """A pool of three phones; each job's first attempt fails for now."""
    with personal_pool(tmp_path_factory.mktemp("pool"), PHONES, Script(seconds=0.2, failures=1)) as running:
        yield running


@contextmanager
def jobs_of(pool: PersonalPool) -> Iterator[FarmJobs]:
    engine = open_engine(pool.database)
    try:
        yield FarmJobs(engine)
    finally:
        engine.dispose()


def states(pool: PersonalPool, run_id: str) -> list[tuple[object, ...]]:
    return query(pool.database, f"SELECT state, attempt FROM jobs WHERE run_id = '{run_id}' ORDER BY id")


def test_jobs_of_a_run_are_each_done_once_at_the_device_that_they_need_after_a_failed_attempt(pool: PersonalPool) -> None:
    serials = sorted(slot.bay.name for slot in read_slots(pool.condor))
    assert len(serials) == PHONES
    new = [NewJob(kind=JobKind.MEASURE, needs=need) for need in (*map(device_need, serials), ANY, ANY)]
    last = NewJob(kind=JobKind.MEASURE, needs=ANY, after=(0, 3))
    jobs = pool.submit("once", [*new, last])
    pool.wait_until(lambda: states(pool, "once") == [("done", 2)] * 6, is_hurried=True)
    assert query(pool.database, "SELECT launch FROM records WHERE run_id = 'once' ORDER BY launch") == [(job.id,) for job in jobs]
    seats = query(pool.database, "SELECT seat FROM jobs WHERE run_id = 'once' ORDER BY id")
    assert [seat for (seat,) in seats[:PHONES]] == serials
    begins, ends = "SELECT min(started_at) FROM attempts WHERE job = {}", "SELECT max(ended_at) FROM attempts WHERE job = {}"
    last_begins = query(pool.database, begins.format(jobs[5].id))[0][0]
    assert all(str(last_begins) > str(query(pool.database, ends.format(jobs[needed].id))[0][0]) for needed in (0, 3))
    pool.wait_until(lambda: "once" not in pool.condor.queued_runs())


def test_the_pool_is_in_order_and_its_status_tells_devices_and_shares(pool: PersonalPool) -> None:
    checked = pool.quadbench("farm", "check")
    assert "versions: here is" in checked.stderr  # the scripted host has a version of its own
    assert f"{OWNER}@quadbench" in checked.stdout
    status = pool.quadbench("farm", "status")
    assert status.returncode == 0, status.stderr
    for name in (*(slot.bay.name for slot in read_slots(pool.condor)), f"{OWNER}@quadbench"):
        assert name in status.stdout


def test_a_cancelled_job_that_runs_is_told_to_stop_and_those_behind_it_never_begin(pool: PersonalPool) -> None:
    first = NewJob(kind=JobKind.MEASURE, needs=ANY)
    jobs = pool.submit("stopped", [first, replace(first, after=(0,))])
    pool.wait_until(lambda: states(pool, "stopped")[0][1] == 1)
    cancelled = pool.quadbench("farm", "cancel", "stopped", "--why", "enough")
    assert cancelled.returncode == 0, cancelled.stderr
    pool.wait_until(lambda: [state for state, _ in states(pool, "stopped")] == ["cancelled"] * 2)
    pool.wait_until(lambda: "stopped" not in pool.condor.queued_runs())
    assert query(pool.database, f"SELECT count(*) FROM attempts WHERE job = {jobs[1].id}") == [(0,)]


def test_jobs_that_were_removed_from_the_queue_by_hand_are_ended_by_the_next_look(pool: PersonalPool) -> None:
    pool.submit("by-hand", [NewJob(kind=JobKind.MEASURE, needs=device_need("nowhere"))])
    pool.condor.remove('QuadbenchRun == "by-hand"', "by hand")
    pool.wait_until(lambda: "by-hand" not in pool.condor.queued_runs())
    query(pool.database, "UPDATE jobs SET submitted_at = '2026-01-01 00:00:00' WHERE run_id = 'by-hand'")
    with jobs_of(pool) as jobs:
        assert jobs.settle(pool.condor.queued_runs(), pool="another") == []
        (ended,) = jobs.settle(pool.condor.queued_runs(), pool=pool.condor.identity)
    assert (ended.state.value, ended.run_id) == ("cancelled", "by-hand")
    assert "queue" in (ended.reason or "")
    assert pool.condor.identity.endswith(f":{pool.condor.configuration}")
    assert "None" not in pool.condor.identity


def test_a_reserved_device_takes_the_jobs_of_nobody_else(pool: PersonalPool) -> None:
    """The slots of the scripted host are nobody's, so the rule itself is asked: HTCondor's own evaluation of START."""
    (slot, *_) = pool.condor.slots("Name")
    start = pool.condor.run("condor_config_val", "START").strip()
    for owner, is_refused in (("ana@desk", False), ("ben@desk", True)):
        rule = start.replace("SlotReservedBy", '"ana@desk"').replace("TARGET.QuadbenchOwner", f'"{owner}"')
        rule = rule.replace("stringListMember(TARGET.QuadbenchNeed, SlotServes)", "True")
        found = pool.condor.slots("Name", constraint=f'Name == "{slot["Name"]}" && ({rule})')
        assert (found == []) == is_refused


def with_token(pool: PersonalPool, folder: Path, token: str | None) -> Condor:
    """Return the pool as another user sees it, who has this token."""
    own = folder / "tokens.d"
    own.mkdir(parents=True)
    (folder / "keys").mkdir()  # empty, as `farm init` makes it at a desk
    if token is not None:
        (own / "token").touch(0o600)
        (own / "token").write_text(token)
    configuration = folder / "condor_config"
    keys = f"SEC_PASSWORD_DIRECTORY = {folder}/keys\nSEC_TOKEN_POOL_SIGNING_KEY_FILE = {folder}/keys/POOL\n"
    configuration.write_text(f"{pool.condor.configuration.read_text()}\nSEC_TOKEN_DIRECTORY = {own}\n{keys}")
    return Condor(configuration=configuration)


def foreign_token(folder: Path) -> str:
    """Return a token that another pool's key has signed."""
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "POOL").touch(0o600)
    (folder / "keys" / "POOL").write_bytes(os.urandom(64))
    settings = ("TRUST_DOMAIN = quadbench", "UID_DOMAIN = quadbench", "LOCAL_DIR = " + str(folder))
    keys = (f"SEC_PASSWORD_DIRECTORY = {folder}/keys", f"SEC_TOKEN_POOL_SIGNING_KEY_FILE = {folder}/keys/POOL")
    (folder / "condor_config").write_text("\n".join((*settings, *keys)) + "\n")
    return make_token(Condor(configuration=folder / "condor_config"), "ana")


def test_who_has_no_token_a_foreign_or_a_stale_one_is_refused_at_once(pool: PersonalPool, tmp_path: Path) -> None:
    stale = pool.condor.run("condor_token_create", "-identity", "ben@quadbench", "-lifetime", "1")
    time.sleep(2)
    tokens = {"none": None, "foreign": foreign_token(tmp_path / "other"), "stale": stale}
    for name, token in tokens.items():
        stranger = with_token(pool, tmp_path / name, token)
        with raising(UserError, "no token of this user", snapshot=False):
            stranger.slots("Name")
        with raising(QuadbenchError, snapshot=False):
            submit_dag(stranger, "none", [])
    assert query(pool.database, "SELECT count(*) FROM jobs WHERE run_id = 'none'") == [(0,)]


def test_root_and_the_jobs_of_others_are_refused(pool: PersonalPool, tmp_path: Path) -> None:
    root = with_token(pool, tmp_path / "root", pool.condor.run("condor_token_create", "-identity", "root@quadbench"))
    pool.submit("mine", [NewJob(kind=JobKind.MEASURE, needs=device_need("nowhere"))])
    with raising(UserError, "no jobs of root", snapshot=False):
        submit_dag(root, "roots", [])
    ben = with_token(pool, tmp_path / "ben", make_token(pool.condor, "ben"))
    pool.wait_until(lambda: ben.queue("ClusterId", constraint='QuadbenchRun == "mine"'))
    with raising(UserError, "jobs of ana", snapshot=False):
        ben.remove('QuadbenchRun == "mine"', "not mine")
    assert pool.condor.queue("ClusterId", constraint='QuadbenchRun == "mine"')
    pool.condor.remove('QuadbenchRun == "mine"', "the test ends")
