"""A farm of three hosts, each with a network of its own, one PostgreSQL and one S3 service: what befalls them costs no job."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.farm_lab import LEASE_S, RUN_S, FarmLab, farm_lab
from support.lab import Lab, lab
from support.lab_night import FLAKY, HOT, LabTeam, told
from support.lab_runs import DEVICES, Desk, content_of, full, launches_of, marked_processes, share_of_the_farm, small_disk
from support.lab_soak import Soak
from support.postgresql_server import PostgresqlServer, running_postgresql
from support.s3_server import S3Server, running_s3
from support.scripted_night import remember
from support.sentences import says

from quadbench.artifacts.night_record import RulingKind
from quadbench.devices.lab.selection import Wish
from quadbench.farm.slots import device_need, wish_need
from quadbench.nightly.night_report import STANDING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BUSY_LEASE_S = 15.0
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
def farm(request: pytest.FixtureRequest, hosts: Lab, server: PostgresqlServer, s3: S3Server, tmp_path: Path) -> Iterator[FarmLab]:
    """A farm with leases of LEASE_S, or as long as a test asks for."""
    with farm_lab(hosts, server, s3, tmp_path, lease_s=getattr(request, "param", LEASE_S)) as built:
        yield built


# A host that builds and measures has little time for signs of life.
busy = pytest.mark.parametrize("farm", [BUSY_LEASE_S], indirect=True, ids=["busy"])


def launches(farm: FarmLab) -> list[object]:
    return [launch for (launch,) in farm.query("SELECT launch FROM records ORDER BY launch")]


def test_a_host_that_is_killed_leaves_nothing_running_and_its_job_is_taken_over_after_the_lease(farm: FarmLab) -> None:
    first, second, _ = farm.lab.hosts
    master = farm.start_scripted(first, 1, 1000)
    ids = farm.submit(1, ANY_S25)
    farm.wait_for_attempt()
    master.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    farm.wait_until(lambda: first.is_idle)
    farm.start_scripted(second, 1, 0)
    farm.wait_until(lambda: farm.number("SELECT max(attempt) FROM jobs") == 2, is_hurried=True)
    sys.stdout.write(f"taken over {time.monotonic() - killed:.1f} s after the kill, with a lease of {LEASE_S:g} s\n")
    farm.wait_until(lambda: farm.count("done") == 1, is_hurried=True)
    assert launches(farm) == ids


def test_a_host_whose_cable_is_pulled_loses_its_jobs_to_others_and_works_again_when_it_is_back(farm: FarmLab) -> None:
    first, second, _ = farm.lab.hosts
    farm.start_scripted(first, 2, 3)
    farm.start_scripted(second, 2, 3)
    farm.wait_for_slots(4)
    ids = farm.submit(12, ANY_S25)
    farm.wait_until(lambda: farm.count("running") == 4)
    first.cut()
    # The pool may offer a job the slots of the cut host until their ads are two minutes old.
    farm.wait_until(lambda: farm.count("done") == 12, is_hurried=True, patience_s=300)
    first.mend()
    ids += farm.submit(1, device_need("lab-a-0"), "later")
    farm.wait_until(lambda: farm.count("done") == 13, is_hurried=True, patience_s=120)
    assert launches(farm) == ids


@pytest.mark.parametrize("away_s", [LEASE_S / 4, LEASE_S * 1.5, 60.0])
def test_a_database_that_was_away_costs_no_job(farm: FarmLab, away_s: float) -> None:
    for host in farm.lab.hosts[:2]:
        farm.start_scripted(host, 2, 1)
    farm.wait_for_slots(4)
    ids = farm.submit(12, ANY_S25)
    farm.wait_until(lambda: farm.count("running") == 4)
    farm.server.stop()
    time.sleep(away_s)
    farm.server.start()
    farm.wait_until(lambda: farm.count("done") == 12, is_hurried=True)
    assert launches(farm) == ids


@pytest.mark.parametrize("daemon", ["condor_schedd", "condor_negotiator", "condor_collector"])
def test_a_daemon_of_the_head_that_is_killed_costs_no_job(farm: FarmLab, daemon: str) -> None:
    for host in farm.lab.hosts[:2]:
        farm.start_scripted(host, 2, 2)
    farm.wait_for_slots(4)
    ids = farm.submit(12, ANY_S25)
    farm.wait_until(lambda: farm.count("running") == 4)
    for pid in farm.pool.daemons(farm.lab.switch, daemon):
        os.kill(pid, signal.SIGKILL)
    farm.wait_until(lambda: farm.count("done") == 12, is_hurried=True, patience_s=120)
    assert launches(farm) == ids


def test_a_negotiator_that_stands_still_for_a_minute_costs_no_job(farm: FarmLab) -> None:
    farm.start_scripted(farm.lab.hosts[0], 2, 1)
    farm.wait_for_slots(2)
    ids = farm.submit(4, ANY_S25)
    farm.wait_until(lambda: farm.count("running") == 2)
    stopped = farm.pool.daemons(farm.lab.switch, "condor_negotiator")
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    ids += farm.submit(4, ANY_S25, "second")
    time.sleep(60)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    farm.wait_until(lambda: farm.count("done") == 8, is_hurried=True)
    assert launches(farm) == ids


@pytest.mark.parametrize("is_whole_host", [True, False], ids=["the host", "HTCondor alone"])
def test_a_frozen_host_stores_nothing_after_the_takeover_says_so_and_goes_on(farm: FarmLab, is_whole_host: bool) -> None:
    first, second, _ = farm.lab.hosts
    farm.start_scripted(first, 1, 300)
    ids = farm.submit(1, ANY_S25)
    farm.wait_for_attempt()
    if is_whole_host:
        first.freeze()
    else:
        for name in ("condor_master", "condor_startd", "condor_starter"):
            for pid in farm.pool.daemons(first, name):
                os.kill(pid, signal.SIGSTOP)
    farm.start_scripted(second, 1, 0)
    frozen = time.monotonic()
    farm.wait_until(lambda: farm.count("done") == 1, is_hurried=True, patience_s=240)
    sys.stdout.write(f"done elsewhere {time.monotonic() - frozen:.0f} s after the freeze\n")
    if not is_whole_host:  # what the attempt itself says, whose host's daemons still sleep
        farm.wait_until(lambda: f"attempt 1 at job {ids[0]} is over" in farm.log(first))
    first.thaw()  # the attempt that wakes is killed by its starter, or by itself
    assert farm.query("SELECT record_id FROM records") == [(f"run-{ids[0]}-2",)]
    farm.submit(1, device_need("lab-a-0"), "later")
    farm.wait_until(lambda: farm.number("SELECT count(*) FROM attempts WHERE seat = 'lab-a-0'") == 2, patience_s=120)
    assert launches(farm) == ids


def test_random_faults_cost_no_job_and_nothing_is_done_twice(farm: FarmLab) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 100_000))
    sys.stdout.write(f"SEED={seed}\n")
    for host in farm.lab.hosts:
        farm.start_scripted(host, 2, 0.3)
    faults = int(os.environ.get("SOAK", "6"))
    ids = farm.submit(5 * faults, ANY_S25)
    Soak(farm, random.Random(seed)).suffer(faults)
    farm.wait_until(lambda: farm.count("done") == len(ids), is_hurried=True, patience_s=60 + 10 * faults)
    assert launches(farm) == ids
    done = farm.query("SELECT job FROM attempts WHERE ended_at IS NOT NULL AND reason IS NULL ORDER BY job")
    assert done == [(job,) for job in ids]
    overlaps = "SELECT count(*) FROM attempts a JOIN attempts b ON a.seat = b.seat AND a.started_at < b.started_at"
    assert farm.number(f"{overlaps} AND b.started_at < a.ended_at AND a.reason IS NULL AND b.reason IS NULL") == 0
    farm.stop_hosts()
    farm.wait_until(lambda: all(host.is_idle for host in farm.lab.hosts))
    assert farm.number("SELECT count(*) FROM leases WHERE job_until > now()") == 0


def test_a_host_of_another_version_gets_nothing_and_the_status_says_why(farm: FarmLab) -> None:
    host = farm.lab.hosts[0]
    farm.start_scripted(host, 1, 0, "2")
    farm.wait_for_slots(1)
    farm.submit(1, ANY_S25)
    time.sleep(10)
    status = farm.run(host, "farm", "status")
    assert status.returncode == 0, status.stderr
    says(status.stdout, "the job is of quadbench 1", "2")
    assert farm.count("waiting") == 1
    assert launches(farm) == []


@pytest.fixture(scope="module")
def desk(hosts: Lab, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A results folder with a run of the tiny recipe on three devices, made without any farm."""
    return Desk.measured(tiny_recipe, tmp_path_factory.mktemp("desk"), hosts.hosts[0])


@busy
@pytest.mark.parametrize("host_count", [3, 1], ids=["three hosts", "one host"])
def test_a_run_of_a_farm_has_the_records_and_pictures_of_the_same_run_without_one(
    farm: FarmLab, desk: Desk, host_count: int, tmp_path: Path
) -> None:
    shares = DEVICES if host_count == 3 else [",".join(DEVICES)]
    for host, devices in zip(farm.lab.hosts, shares, strict=False):
        desk.equip(farm.results(host))
        farm.start_host(host, devices)
    farm.wait_for_slots(len(DEVICES) + host_count)
    results = tmp_path / "submitter" if host_count == 3 else desk.results  # where the bundle is
    words = "run", desk.recipe, "--farm", farm.environment["QUADBENCH_DATABASE"], "--devices", ",".join(DEVICES)
    ended = farm.run(farm.lab.hosts[2], *words, results=results)
    assert ended.returncode == 0, ended.stderr + "".join(farm.log(host) for host in farm.lab.hosts[:host_count])
    assert content_of(farm.database, results) == desk.content
    kinds = Counter(kind for (kind,) in farm.query("SELECT kind FROM jobs WHERE state = 'done'"))
    assert kinds == Counter(build=host_count == 3, compile=1, measure=3)
    sys.stdout.write(f"{host_count} hosts: {share_of_the_farm(farm):.0%} of the time of attempts at devices is no launch\n")


def measuring(farm: FarmLab, desk: Desk, folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """Begin a run at the first host, wait until it has some records, and return the host's process and the run's id."""
    first, second, submitter = farm.lab.hosts
    for host in (first, second):
        desk.equip(farm.results(host))
    master = farm.start_host(first, "virtual:s25")
    farm.wait_for_slots(2)
    recipe = desk.with_launches(6, folder)
    submitted = farm.run(submitter, "farm", "submit", recipe, "--devices", "virtual:s25", "--json", results=desk.results)
    assert submitted.returncode == 0, submitted.stderr
    farm.wait_until(lambda: farm.number("SELECT count(*) FROM records") > 2)
    return master, json.loads(submitted.stdout)["run_id"]


@busy
def test_a_host_frozen_in_a_measurement_stores_no_launch_after_the_takeover(farm: FarmLab, desk: Desk, tmp_path: Path) -> None:
    first, second, _ = farm.lab.hosts
    measuring(farm, desk, tmp_path / "many")
    first.freeze()
    before = launches_of(farm)
    farm.start_host(second, "virtual:s25")
    farm.wait_until(lambda: farm.count("done") == farm.number("SELECT count(*) FROM jobs"), is_hurried=True, patience_s=RUN_S)
    stored = launches_of(farm)
    first.thaw()  # the attempt that wakes is killed by its starter, or by itself
    time.sleep(5)
    farm.stop_hosts()
    assert launches_of(farm) == stored
    assert stored[: len(before)] == before
    assert len(set(stored)) == len(stored)


@busy
def test_a_host_killed_in_a_measurement_takes_its_attempt_along_and_no_launch_is_lost_or_stored_twice(
    farm: FarmLab, desk: Desk, tmp_path: Path
) -> None:
    first, second, submitter = farm.lab.hosts
    master, run_id = measuring(farm, desk, tmp_path / "many")
    master.kill()
    farm.wait_until(lambda: first.is_idle and not marked_processes(farm.results(first)))
    stored = launches_of(farm)
    farm.start_host(second, "virtual:s25")
    farm.wait_until(lambda: farm.count("done") == farm.number("SELECT count(*) FROM jobs"), is_hurried=True, patience_s=RUN_S)
    fetched = farm.run(submitter, "farm", "fetch", run_id, results=tmp_path / "submitter")
    assert fetched.returncode == 0, fetched.stderr
    assert launches_of(farm)[: len(stored)] == stored
    launched = launches_of(farm)
    assert len(set(launched)) == len(launched)
    # Launches that are compared stand in blocks; one that was broken off is measured again, under numbers of its own.
    counts = Counter(str(variant) for variant, _ in launched)
    assert counts >= Counter({"float": 1, "per-graph": 6, "shared": 6})


@busy
def test_a_night_whose_conductor_was_killed_finds_its_jobs_again_and_measures_nothing_twice(
    farm: FarmLab, desk: Desk, tmp_path: Path
) -> None:
    for host, devices in zip(farm.lab.hosts, DEVICES, strict=True):
        desk.equip(farm.results(host))
        farm.start_host(host, devices)
    farm.wait_for_slots(6)
    conductor, file = farm.lab.hosts[2], tmp_path / "night.yaml"
    case = {"name": "tiny", "source": str(desk.recipe)}
    night = {"schema_version": 1, "name": "lab", "devices": DEVICES, "yardstick": "reference", "blocks": 2, "cases": [case]}
    file.write_text(json.dumps({**night, "quality": ["ssim"]}))
    frozen = farm.run(conductor, "nightly", "freeze", "reference", desk.recipe, results=desk.results)
    assert frozen.returncode == 0, frozen.stderr
    words = "nightly", "run", file, "--night", "one", "--farm", farm.environment["QUADBENCH_DATABASE"]
    killed = farm.start_quadbench(conductor, *words, results=desk.results)
    farm.wait_until(lambda: farm.number("SELECT count(*) FROM records") > 2)
    killed.kill()
    ended = farm.run(conductor, *words, results=desk.results)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert farm.number("SELECT count(*) FROM jobs WHERE kind = 'compare'") == 3
    assert farm.query("SELECT address FROM night_measurements ORDER BY address") == [(word,) for word in sorted(DEVICES)]
    assert farm.query("SELECT DISTINCT kind FROM night_rulings") == [("CLEAN",)]
    scored = "SELECT DISTINCT task FROM night_points WHERE key = '{}' AND value > 0"
    assert farm.query(scored.format("ssim")) == farm.query(scored.format("psnr"))  # the conductor fetched what each host painted
    assert farm.number("SELECT count(*) FROM night_points WHERE key = 'ssim'") == 3 * len(farm.query(scored.format("ssim")))


@busy
@pytest.mark.timeout(1200)
@pytest.mark.timeout(1500)  # of three nights
def test_in_a_night_of_three_hosts_each_device_gets_the_ruling_that_its_fate_deserves(
    farm: FarmLab, desk: Desk, tmp_path: Path
) -> None:
    team = LabTeam(farm, desk, tmp_path / "team")
    team.start_hosts(("s25",), ("tabs11", "s25-exynos"), ("local",))
    frozen = farm.run(farm.lab.hosts[2], "nightly", "freeze", "reference", desk.recipe, results=desk.results)
    assert frozen.returncode == 0, frozen.stderr
    assert team.perform("first") == 0, team.rulings("first")
    remember(farm.database, "fates-first", 12, noise=0.1, faster={"local": 0.25})
    farm.stop_hosts()
    team.befall("s25", FLAKY)
    team.befall("tabs11", HOT)
    team.slow_one_adapter_down()
    team.start_hosts(("s25",), ("tabs11",), ("local",))
    code, rulings = team.perform("tonight"), team.rulings("tonight")
    ruled = told(rulings)
    assert ("portrait", "virtual-s25", RulingKind.REGRESSION) in ruled, rulings  # though its cable came off
    assert ("scene", "local", RulingKind.ENVIRONMENT) in ruled, rulings
    causes = {one.address: one.cause for one in rulings if one.kind is RulingKind.MISSING and one.task is None}
    assert causes.keys() == {"virtual-tabs11", "virtual-s25-exynos"}
    assert "thermal status 3" in causes["virtual-tabs11"]
    says(causes["virtual-s25-exynos"], "the farm has 0 devices that fit", "virtual-s25-exynos")
    assert code == 2
    says(farm.log(farm.lab.hosts[0]), "the device is back")
    later, ruled_later = team.perform("later"), team.rulings("later")
    standing = [one for one in ruled_later if one.is_standing]
    assert {(one.address, one.since, one.nights) for one in standing} == {("virtual-s25", "fates-tonight", 2)}
    is_new = any(one.kind is RulingKind.REGRESSION and not one.is_standing for one in ruled_later)
    assert later == (2 if is_new else STANDING)


def test_a_full_store_fails_a_job_for_now_and_it_is_done_when_there_is_room(
    hosts: Lab, server: PostgresqlServer, s3: S3Server, desk: Desk, tmp_path: Path
) -> None:
    disk, host = tmp_path / "disk", hosts.hosts[0]
    with small_disk(disk, "64m"), farm_lab(hosts, server, s3, tmp_path, store=str(disk), lease_s=BUSY_LEASE_S) as farm:
        desk.equip(farm.results(host))
        farm.start_host(host, "virtual:s25")
        farm.wait_for_slots(2)
        submitted = farm.run(hosts.hosts[2], "farm", "submit", desk.recipe, "--devices", "virtual:s25", results=desk.results)
        assert submitted.returncode == 0, submitted.stderr
        with full(disk):
            farm.wait_until(lambda: farm.number("SELECT count(*) FROM jobs WHERE reason LIKE '%No space left%'") == 1)
        assert farm.count("failed") == 0
        farm.wait_until(lambda: farm.count("done") == farm.number("SELECT count(*) FROM jobs"), is_hurried=True)
        farm.stop_hosts()


@busy
def test_a_device_that_is_nowhere_and_a_store_that_takes_nothing_are_named_and_nothing_is_submitted(
    farm: FarmLab, desk: Desk, s3: S3Server
) -> None:
    host, submitter = farm.lab.hosts[0], farm.lab.hosts[2]
    desk.equip(farm.results(host))
    farm.start_host(host, "virtual:s25")
    farm.wait_for_slots(2)

    def submit_to(devices: str) -> subprocess.CompletedProcess[str]:
        return farm.run(submitter, "farm", "submit", desk.recipe, "--devices", devices, results=desk.results)

    unknown = submit_to("tabs11")
    assert unknown.returncode == 5
    says(unknown.stderr, "the farm has 0 devices that fit", "tabs11")
    s3.deny(farm.store, "s3:PutObject")
    refused = submit_to("virtual:s25")
    assert refused.returncode == 3
    says(refused.stderr, farm.store)
    assert farm.number("SELECT count(*) FROM jobs") == 0
    assert launches_of(farm) == []


@busy
def test_a_bundle_that_was_spoilt_in_the_store_is_refused_by_its_name(farm: FarmLab, desk: Desk, s3: S3Server) -> None:
    host, submitter = farm.lab.hosts[0], farm.lab.hosts[2]
    desk.equip(farm.results(host))
    farm.start_host(host, "virtual:s25")
    farm.wait_for_slots(2)
    (negotiator,) = farm.pool.daemons(farm.lab.switch, "condor_negotiator")
    os.kill(negotiator, signal.SIGSTOP)
    submitted = farm.run(submitter, "farm", "submit", desk.recipe, "--devices", "virtual:s25", results=desk.results)
    assert submitted.returncode == 0, submitted.stderr
    s3.spoil(farm.store)
    os.kill(negotiator, signal.SIGCONT)
    farm.wait_until(lambda: farm.number("SELECT count(*) FROM jobs WHERE reason IS NOT NULL") > 0, is_hurried=True)
    told = farm.run(submitter, "farm", "logs", "1")
    assert "sha256" in told.stdout + told.stderr
    assert launches_of(farm) == []
