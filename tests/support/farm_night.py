"""A night on a farm whose pool is scripted: one host with a virtual device, and a launcher that looks at it all the time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from quadbench.artifacts import Bundle
from quadbench.devices.addresses import parse_address
from quadbench.dispatch.offers import capabilities, given_bay
from quadbench.dispatch.submission import Farm
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import FarmJobs, Start
from quadbench.farm.slots import Bay, capability_need
from quadbench.farm.store.opening import open_store
from quadbench.measure.launch_schedule import Budget
from quadbench.nightly.farm_launcher import FarmLauncher
from quadbench.nightly.launcher import CaseRequest
from quadbench.results.engine import open_engine
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref, publish
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.run_comparison import SideSpec
from support.bundles import bundle_of
from support.scripted_pool import ScriptedPool, pool_with_token
from support.watcher import Silent

NIGHT, HOST, WORD = "phones-one", "lab-1", "virtual:s25"
OVER = Budget(ends_at=0.0)
PHONE = given_bay(parse_address(WORD))
ROOM = Bay(name="room@h1", address="", serves=frozenset(map(capability_need, capabilities())))


@dataclass(frozen=True)
class Acting(Silent):
    """An observer that acts each time a night tells of its comparisons on the farm."""

    act: Callable[[], object]

    def stage_step(self, stage: str, *_: object) -> None:
        if stage == "farm":
            self.act()


def night_pool(folder: Path) -> ScriptedPool:
    """Return a pool with one host that has a device, and compiles."""
    return pool_with_token(folder, [PHONE, ROOM], HOST, version("quadbench"))


@contextmanager
def night_launcher(folder: Path, pool: ScriptedPool) -> Iterator[FarmLauncher]:
    """Yield the launcher of a night on a farm in a folder."""
    (folder / "store").mkdir()
    engine = open_engine(folder / "farm.sqlite")
    farm = Farm(engine=engine, store=open_store(folder / "store"), pool=pool)
    try:
        yield FarmLauncher(night_id=NIGHT, farm=farm, layout=Layout(folder / "results"), observer=Silent())
    finally:
        engine.dispose()


def stored_side(folder: Path) -> SideSpec:
    """Return a bundle that a farm's store takes."""

    def fill(temporary: Path) -> Bundle:
        (temporary / "profile.json").write_text("{}")
        return bundle_of(file_ref(temporary, temporary / "profile.json"), digest="a" * 64)

    return SideSpec(source="reference", changes={}, bundle=publish(folder / "bundle", fill))


def launched(
    launcher: FarmLauncher, a: SideSpec, word: str = WORD, budget: Budget | None = OVER, **cases: SideSpec
) -> dict[str, str]:
    """Have cases launched beside A, and return why nothing came of each: without time, what waits is cancelled at once."""
    wanted = [CaseRequest(case=case, a=a, b=b, words=(word,), looks=LOOKS) for case, b in cases.items()]
    return {one.case: one.reason or "" for one in launcher.launch(wanted, budget)}


def jobs_of(launcher: FarmLauncher, run_id: str = NIGHT) -> Sequence[Job]:
    """Return the jobs of a run, such as those of the night's first batch."""
    return listed_jobs(launcher.farm.engine, run_id)


def comparison() -> NewJob:
    """Return a job to compare something on the device."""
    return NewJob(kind=JobKind.COMPARE, needs=f"device {PHONE.name}", payload={"case": "portrait"})


def begun(launcher: FarmLauncher, job: Job) -> Job:
    """Have a slot start a job."""
    start = Start(job=job.id, run=job.run_id, number=job.attempt + 1, seat=PHONE.name, host=HOST)
    return FarmJobs(launcher.farm.engine).begin(start)
