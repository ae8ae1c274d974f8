"""A farm of three hosts, each with a network of its own, one PostgreSQL and one S3 service: what befalls them costs no job."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.farm_lab import LEASE_S, FarmLab, farm_lab
from support.lab import Lab, lab
from support.postgresql_server import PostgresqlServer, running_postgresql
from support.s3_server import S3Server, running_s3
from support.scripted_worker import VERSION

from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import JobQueue
from quadbench.farm.need import wish_need
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


def submit(farm: FarmLab, count: int, needs: str = ANY_S25) -> list[int]:
    engine = open_engine(farm.database)
    jobs = [NewJob(kind=JobKind.MEASURE, needs=needs, most_attempts=100)] * count
    ids = JobQueue(engine).submit("run", jobs, "ana@lab", VERSION)
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
    print(f"taken over after {time.monotonic() - killed:.1f} s, with a lease of {LEASE_S:g} s")
    farm.wait_until(lambda: farm.count("done") == 1, is_hurried=True)
    assert launches(farm) == ids
