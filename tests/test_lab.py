"""A farm of three hosts, each with a network of its own, one PostgreSQL and one S3 service: what befalls them costs no job."""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.farm_lab import LEASE_S, FarmLab, farm_lab
from support.lab import Lab, lab
from support.lab_soak import Soak
from support.postgresql_server import PostgresqlServer, running_postgresql
from support.s3_server import S3Server, running_s3
from support.scripted_worker import VERSION

from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import device_need, wish_need
from quadbench.farm.selection import Wish
from quadbench.results.engine import open_engine

pytestmark = pytest.mark.slow
ANY_S25 = wish_need(Wish(word="s25", key=None, value="s25", count=1))


@pytest.fixture(scope="module")
def hosts() -> Iterator[Lab]:
    with lab("lab-a", "lab-b", "lab-c") as built:
        yield built


@pytest.fixture(scope="module")
def server(hosts: Lab) -> Iterator[PostgresqlServer]:
    with running_postgresql(hosts.switch) as running:
        yield running


@pytest.fixture(scope="module")
def s3(hosts: Lab) -> Iterator[S3Server]:
    with running_s3(hosts.switch) as running:
        yield running


@pytest.fixture
def farm(hosts: Lab, server: PostgresqlServer, s3: S3Server, tmp_path: Path) -> Iterator[FarmLab]:
    with farm_lab(hosts, server, s3, tmp_path) as built:
        yield built


def submit(farm: FarmLab, count: int, needs: str = ANY_S25, run_id: str = "run") -> list[int]:
    engine = open_engine(farm.database)
    jobs = [NewJob(kind=JobKind.MEASURE, needs=needs, most_attempts=100)] * count
    ids = JobQueue(engine).submit(run_id, jobs, "ana@lab", VERSION)
    engine.dispose()
    return ids


def launches(farm: FarmLab) -> list[object]:
    return [launch for (launch,) in farm.query("SELECT launch FROM records ORDER BY launch")]


def test_a_worker_that_is_killed_leaves_nothing_running_and_its_job_is_taken_over_after_the_lease(farm: FarmLab) -> None:
    first, second, _ = farm.lab.hosts
    ids = submit(farm, 1)
    worker = farm.start_scripted(first, 1, 1000)
    farm.wait_until(lambda: farm.number("SELECT count(*) FROM leases WHERE job_owner IS NOT NULL") == 1)
    worker.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    farm.wait_until(lambda: not first.processes)
    farm.start_scripted(second, 1, 0)
    farm.wait_until(lambda: farm.number("SELECT max(attempt) FROM jobs") == 2, is_hurried=True)
    sys.stdout.write(f"taken over {time.monotonic() - killed:.1f} s after the kill, with a lease of {LEASE_S:g} s\n")
    farm.wait_until(lambda: farm.count("done") == 1, is_hurried=True)
    assert launches(farm) == ids


def test_a_host_whose_cable_is_pulled_loses_its_jobs_to_others_and_works_again_when_it_is_back(farm: FarmLab) -> None:
    first, second, _ = farm.lab.hosts
    farm.start_scripted(first, 2, 1)
    farm.start_scripted(second, 2, 1)
    farm.wait_for_workers(2)
    ids = submit(farm, 12)
    farm.wait_until(lambda: farm.count("running") == 4)
    first.cut()
    farm.wait_until(lambda: farm.count("done") == 12, is_hurried=True)
    first.mend()
    ids += submit(farm, 1, device_need("lab-a-0"), "later")
    farm.wait_until(lambda: farm.count("done") == 13, is_hurried=True)
    assert launches(farm) == ids
    assert "the queue is not reached" in farm.log(first)


@pytest.mark.parametrize("away_s", [LEASE_S / 4, LEASE_S * 1.5])
def test_a_database_that_was_away_costs_no_job(farm: FarmLab, away_s: float) -> None:
    for host in farm.lab.hosts[:2]:
        farm.start_scripted(host, 2, 1)
    farm.wait_for_workers(2)
    ids = submit(farm, 12)
    farm.wait_until(lambda: farm.count("running") == 4)
    farm.server.stop()
    time.sleep(away_s)
    farm.server.start()
    farm.wait_until(lambda: farm.count("done") == 12, is_hurried=True)
    assert launches(farm) == ids


@pytest.mark.parametrize("is_whole_host", [True, False], ids=["the host", "the worker alone"])
def test_a_frozen_worker_stores_nothing_after_the_takeover_says_so_and_goes_on(farm: FarmLab, is_whole_host: bool) -> None:
    first, second, _ = farm.lab.hosts
    worker = farm.start_scripted(first, 1, LEASE_S * 2)
    ids = submit(farm, 1)
    farm.wait_until(lambda: farm.count("running") == 1)
    (first.freeze if is_whole_host else lambda: worker.send_signal(signal.SIGSTOP))()
    farm.start_scripted(second, 1, 0)
    farm.wait_until(lambda: farm.count("done") == 1, is_hurried=True)
    if not is_whole_host:
        farm.wait_until(lambda: "attempt 1 at job" in farm.log(first))  # what the attempt itself says, whose worker still sleeps
    first.thaw()
    farm.wait_until(lambda: f"attempt 1 at job {ids[0]} is over" in farm.log(first))
    assert farm.query("SELECT record_id FROM records") == [(f"run-{ids[0]}-2",)]
    ids += submit(farm, 1, device_need("lab-a-0"), "later")
    farm.wait_until(lambda: farm.count("done") == 2, is_hurried=True)
    assert launches(farm) == ids


def test_random_faults_cost_no_job_and_nothing_is_done_twice(farm: FarmLab) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 100_000))
    sys.stdout.write(f"SEED={seed}\n")
    for host in farm.lab.hosts:
        farm.start_scripted(host, 2, 0.3)
    faults = int(os.environ.get("SOAK", "6"))
    ids = submit(farm, 20 * faults)
    Soak(farm, random.Random(seed)).suffer(faults)
    farm.wait_until(lambda: farm.count("done") == len(ids), is_hurried=True)
    assert launches(farm) == ids
    done = farm.query(
        "SELECT job, count(*) FROM attempts WHERE ended_at IS NOT NULL AND reason IS NULL GROUP BY job ORDER BY job"
    )
    assert done == [(job, 1) for job in ids]
    overlaps = "SELECT count(*) FROM attempts a JOIN attempts b ON a.seat = b.seat AND a.started_at < b.started_at"
    assert farm.number(f"{overlaps} AND b.started_at < a.ended_at") == 0
    farm.stop_workers()
    farm.wait_until(lambda: not any(host.processes for host in farm.lab.hosts))
    assert farm.number("SELECT count(*) FROM leases WHERE job_until > now()") == 0


def test_a_worker_of_another_version_gets_nothing_and_says_why(farm: FarmLab) -> None:
    host = farm.lab.hosts[0]
    submit(farm, 1)
    farm.start_scripted(host, 1, 0, "2")
    farm.wait_until(lambda: "jobs wait for quadbench 1, and worker 'lab-a' is quadbench 2" in farm.log(host))
    assert farm.count("waiting") == 1
    assert launches(farm) == []
