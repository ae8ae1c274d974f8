"""The live page shows the pool's hosts and why jobs wait, also while the pool hangs, fails or does not exist."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from support.live_lab import pool_of_lab
from support.live_site import Site, served
from support.report_page import Page
from support.scripted_pool import ScriptedPool
from support.sentences import says
from support.stored_records import query

pytest.importorskip("starlette")

from quadbench.errors import ServiceError, UserError
from quadbench.farm.condor import Ad, Condor
from quadbench.farm.slots import Bay
from quadbench.results.layout import Layout
from quadbench.serve.farm_state import FarmHost, FarmNow
from quadbench.serve.queries import ResultsQueries, SlotWatch

SECRET = "/home/ana/tokens"
PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Unreliable(ScriptedPool):
    """A pool that may hang or fail; `reads` counts how often it was asked."""

    may_answer: threading.Event = field(default_factory=threading.Event)
    faults: list[ServiceError] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)

    def slots(self, *attributes: str, constraint: str = "") -> list[Ad]:
        self.reads.append(time.monotonic())
        self.may_answer.wait(PATIENCE_S)
        if self.faults:
            raise self.faults[0]
        return super().slots(*attributes, constraint=constraint)


@pytest.fixture
def pool() -> Iterator[Unreliable]:
    bay = Bay(name="local@lab-1", address="local", serves=frozenset())
    unreliable = Unreliable(hosts={"lab-1": [bay]})
    yield unreliable
    unreliable.may_answer.set()


def _no_pool() -> Condor:
    raise UserError("no pool is configured for this user")


def _when(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    assert holds()


@pytest.fixture(scope="module")
def farm(filled_lab: Layout) -> FarmNow:
    """The farm of a lab, as the page reads it."""
    return ResultsQueries(filled_lab, pool_of_lab).farm()


def test_each_host_has_its_devices_builds_and_state(farm: FarmNow) -> None:
    takes = ("build", "local", "s25", "tabs11", "virtual:s25")
    assert farm.hosts == (
        FarmHost(host="lab-1", version="0.1.0", takes=takes, state="ready"),
        FarmHost(host="lab-2", version="0.1.0", takes=("build",), state="draining"),
        FarmHost(host="lab-3", version="0.1.0", takes=("build",), state="silent"),
    )


def test_a_user_s_share_is_the_slots_in_use(farm: FarmNow, site: Site) -> None:
    assert farm.shares == {"ben": 1}
    assert "Slots in use: ben 1." in Page(site.ask("/farm").text).text


def test_a_waiting_job_says_why_it_waits(farm: FarmNow, site: Site) -> None:
    waits = {one.job.id: one.waits or "" for one in farm.jobs}
    build, measure, other = sorted(waits)
    assert waits[measure] == f"it needs job {build}"
    assert "R5CX2" in waits[other]
    assert "quarantine" in waits[other]
    assert "lab-2" in waits[build]
    text = Page(site.ask("/farm").text).text
    assert all(why in text for why in waits.values())


def test_a_job_that_is_tried_again_says_why_and_for_what_it_waits(own_lab: Layout) -> None:
    query(own_lab.database, "UPDATE jobs SET reason = 'the phone was lost', attempt = 1 WHERE needs = 'device R5CX2'")
    with served(own_lab, pool=pool_of_lab) as site:
        text = Page(site.ask("/farm").text).text
    assert "waiting the phone was lost; R5CX2: in quarantine" in text


def test_a_device_with_a_free_slot_is_free_and_one_in_use_is_busy(farm: FarmNow) -> None:
    states = {device.name: device.state for device in farm.devices}
    assert states["local"] == "free"
    assert "ben" in states["virtual:s25"]


def test_a_reason_is_cut_and_a_host_without_devices_takes_nothing(own_lab: Layout) -> None:
    lab = pool_of_lab(lambda text: text * 100)
    gone = Bay(name="R5CX9", address="", serves=frozenset(), why_not="R5CX9 is gone")
    pool = replace(lab, hosts={**lab.hosts, "lab-9": [gone]})
    farm = ResultsQueries(own_lab, lambda: pool).farm()
    with served(own_lab, pool=lambda: pool) as site:
        text = Page(site.ask("/farm").text).text
    assert max(len(one.waits or "") for one in farm.jobs) < 600
    assert [host.takes for host in farm.hosts if host.host == "lab-9"] == [()]
    assert "nothing" in text


def test_a_pool_that_hangs_delays_the_page_for_seconds_once(own_lab: Layout, pool: Unreliable) -> None:
    with served(own_lab, pool=lambda: pool) as site:
        began = time.monotonic()
        farm, front = site.ask("/farm"), site.ask("/")
        assert time.monotonic() - began < PATIENCE_S / 2
        assert (farm.status, front.status) == (200, 200)
        says(Page(farm.text).text, "pool")
        assert "tabs11" in farm.text
        assert len(pool.reads) == 1
        pool.may_answer.set()
        _when(lambda: "lab-1" in Page(site.ask("/farm").text).text)


def test_a_pool_that_fails_is_said_without_its_words_and_logged_once(
    own_lab: Layout, pool: Unreliable, caplog: pytest.LogCaptureFixture
) -> None:
    pool.may_answer.set()
    pool.faults.append(ServiceError(f"the pool does not answer: {SECRET}", transient=True))
    with served(own_lab, pool=lambda: pool) as site:
        answer = site.ask("/farm")
    assert answer.status == 200
    says(Page(answer.text).text, "pool")
    assert SECRET not in answer.text
    assert caplog.text.count(SECRET) == 1


def test_where_there_is_no_pool_the_page_says_how_to_find_out_why(own_lab: Layout) -> None:
    farm = ResultsQueries(own_lab, _no_pool).farm()
    with served(own_lab, pool=_no_pool) as site:
        text = Page(site.ask("/farm").text).text
    assert (farm.hosts, farm.shares, farm.faults) == ((), {}, ())
    assert {one.waits for one in farm.jobs} == {None}
    assert "quadbench farm check" in text


def test_the_last_answer_is_kept_while_the_pool_hangs_or_fails(pool: Unreliable, caplog: pytest.LogCaptureFixture) -> None:
    watch = SlotWatch(lambda: pool, patience_s=0.2)
    pool.may_answer.set()
    _when(lambda: watch().fault is None)
    known = watch()
    assert [slot.host for slot in known.slots] == ["lab-1"]
    pool.may_answer.clear()
    hanging = [watch() for _ in range(3)]
    pool.faults.append(ServiceError("down", transient=True))
    pool.may_answer.set()
    _when(lambda: "down" in caplog.text)
    failed = [watch() for _ in range(3)]
    for state in (*hanging, *failed):
        assert state.slots == known.slots
        assert state.fault is not None
        says(state.fault, "pool")
    assert caplog.text.count("down") == 1
    pool.faults.clear()
    _when(lambda: watch().fault is None)
