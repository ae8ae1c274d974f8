"""Live lab: a results folder -> the same with runs, nights, a farm and work under way, in which people's words are any text."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from quadbench.artifacts import Bundle, Caveat, FileRef, RunRecord, TaskItem
from quadbench.artifacts.night_record import Acknowledgement
from quadbench.devices.lab.health import quarantined
from quadbench.devices.lab.inventory import Inventory, Sighting
from quadbench.devices.lab.leases import Leases
from quadbench.farm.condor import Ad
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.slots import SILENT_S, Bay, capability_need, device_need, needs_served
from quadbench.host import process_identity
from quadbench.results.digests import sha256_of
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout
from quadbench.results.manifest import publish
from quadbench.results.nights import NightStore
from quadbench.results.progress import DeviceProgress, Progress, Stage, save_progress
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, save_run
from support.night_samples import FIRST, NIGHTS, keep_night, measurement, night_id, sample_night
from support.scripted_pool import ScriptedPool
from support.synthetic_run import S25, TABS11, failed, make_run

RUN = "20260102-030405-quickstart"
AT_WORK = "20260102-040506-abcd"
OF_FARM = "20260102-050607-abcd"
NIGHT = night_id(NIGHTS - 1)
Words = Callable[[str], str]


def plain(text: str) -> str:
    return text


@dataclass(frozen=True, kw_only=True)
class LabPool(ScriptedPool):
    """A pool in which jobs run, and hosts are silent or drain. `users` is a dict from a device's name to whose job it does."""

    users: dict[str, str] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    draining: tuple[str, ...] = ()

    def slots(self, *attributes: str, constraint: str = "") -> list[Ad]:
        return [self._used(ad) for ad in super().slots(*attributes, constraint=constraint)]

    def _used(self, ad: Ad) -> Ad:
        user, host = self.users.get(ad["SlotDevice"]), ad["Machine"]
        seen = int(time.time()) - (2 * SILENT_S if host in self.silent else 0)
        state = {"State": "Drained"} if host in self.draining else {"RemoteOwner": f"{user}@quadbench"} if user else {}
        return {**ad, **state, "SlotSeen": seen}


def pool_of_lab(words: Words = plain) -> LabPool:
    """A pool of three hosts: one builds and has four devices, one drains, one is silent."""
    room = Bay(name="room@lab-1", address="", serves=frozenset({capability_need(words("build"))}))
    phone = _bay("R5CX1", words("s25"), reserved_by=words("ana@lab"))
    quarantined_phone = _bay("R5CX2", words("tabs11"), why_not=words("in quarantine: 3 jobs in a row failed"))
    local, virtual = _bay("local@lab-1", words("local")), _bay("virtual-s25@lab-1", words("virtual:s25"))
    hosts = {words("lab-1"): [room, phone, quarantined_phone, local, virtual]}
    others = {name: [replace(room, name=f"room@{name}")] for name in ("lab-2", "lab-3")}
    users = {"virtual-s25@lab-1": words("ben")}
    return LabPool(hosts=hosts | others, version=words("0.1.0"), users=users, silent=("lab-3",), draining=("lab-2",))


def _bay(name: str, address: str, *, why_not: str = "", reserved_by: str | None = None) -> Bay:
    labels = {"name": address, "profile": address}
    serves = needs_served(name, labels)
    return Bay(name=name, address=address, serves=serves, labels=labels, why_not=why_not, reserved_by=reserved_by)


def fill(layout: Layout, words: Words = plain, *, with_run: bool = True) -> None:
    """Fill a results folder and its database. `words` makes of each text that comes from outside another one."""
    layout.root.mkdir(parents=True, exist_ok=True)
    engine = open_engine(database_of(layout))
    try:
        _fill_farm(engine, words)
        _fill_nights(engine, words)
    finally:
        engine.dispose()
    if with_run:
        store_run(layout, words)
    begin_work(layout, words)


def begin_work(layout: Layout, words: Words = plain) -> None:
    """Have work under way: for a minute, as who says nothing for longer is held for dead."""
    layout.at_work.mkdir(exist_ok=True)
    save_progress(layout, "work", work(words))


def copied(lab: Layout, folder: Path) -> Layout:
    """Copy a filled results folder, and begin its work anew."""
    layout = Layout(Path(shutil.copytree(lab.root, folder)))
    begin_work(layout)
    return layout


def store_run(layout: Layout, words: Words = plain) -> None:
    """Store a run on two devices, in which a launch failed, with its pictures."""

    def change(record: RunRecord) -> RunRecord:
        device = replace(record.device, title=words("Galaxy"), cpu=words("CPU"), android_release=words("15"))
        state = {**record.state, words("before.thing"): words("thing")}
        changed = replace(record, recipe_name=words("quickstart"), device=device, state=state, versions={words("v"): words("1")})
        is_broken = record.device == TABS11 and record.launch == 4
        return failed(changed, words("the harness was killed")) if is_broken else changed

    result = make_run(layout.root, devices=(S25, TABS11), change=change)
    files = result.stored.folder
    folder = layout.bundles / "b1"
    publish(folder, lambda new: published(files, new, replace(result.bundle, recipe_name=words("quickstart"))))
    save_run(
        layout,
        RunFile(
            run_id=RUN,
            bundle=folder.name,
            deployments=result.deployments,
            is_ended=True,
            planned={},
            recipe=words("name: quickstart"),
            swept={words("precision.lora"): words("int8")},
            left_out={words("s24"): words("it is gone")},
        ),
    )
    with open_records(database_of(layout)) as records:
        for record in result.records:
            records.store(record)


def published(files: Path, folder: Path, bundle: Bundle) -> Bundle:
    """Copy a bundle's pictures, and return it with what they are."""
    shutil.copytree(files, folder, dirs_exist_ok=True)

    def true(file: FileRef | None) -> FileRef | None:
        if file is None:
            return None
        path = folder / file.path
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text("nothing that a page shows")
        return replace(file, sha256=sha256_of(path), size_bytes=path.stat().st_size)

    def of_item(item: TaskItem) -> TaskItem:
        return replace(item, image=true(item.image), mask=true(item.mask), truth=true(item.truth), reference=true(item.reference))

    tasks = tuple(
        replace(task, table=true(task.table), tensors=true(task.tensors), items=tuple(map(of_item, task.items)))
        for task in bundle.tasks
    )
    return replace(bundle, tasks=tasks, profile=true(bundle.profile))


def work(words: Words = plain) -> Progress:
    """Work on two devices, of this process."""
    now = datetime.now(UTC)
    devices = {
        words("s25"): DeviceProgress(stage=Stage.MEASURE, launch=3, launches=4, task=words("restyle"), image=1, images=2),
        words("tabs11"): DeviceProgress(stage=Stage.WAIT, reason=words("the cable")),
    }
    return Progress(
        what=words("quickstart"),
        owner=words("ana@lab"),
        process=process_identity(),
        run_id=AT_WORK,
        began_at=now,
        updated_at=now,
        stage=words("measure"),
        detail=words("all"),
        devices={name[:250]: device for name, device in devices.items()},
    )


def _fill_farm(engine: sa.Engine, words: Words) -> None:
    inventory = Inventory(engine)
    sighting = Sighting(
        device="R5CX1",
        address=words("s25"),
        serial="R5CX1",
        state="device",
        model=words("Galaxy S25"),
        profile=words("s25"),
        chip=words("SM8750"),
        android_release="15",
        abi="arm64-v8a",
        host=words("lab-1"),
    )
    inventory.note_seen([sighting, replace(sighting, device="R5CX2", serial="R5CX2", address=words("tabs11"))])
    inventory.change("R5CX2", lambda _: quarantined(words("3 jobs in a row failed")))
    Leases(engine).reserve("R5CX1", words("ana@lab"), words("profiling"), 3600.0)
    Leases(engine).take("virtual-s25@lab-1", words("ben@lab"), words("run of quickstart"))
    jobs = [
        NewJob(kind=JobKind.BUILD, needs=capability_need("build")),
        NewJob(kind=JobKind.MEASURE, needs=device_need("R5CX1"), after=(0,)),
        NewJob(kind=JobKind.MEASURE, needs=device_need("R5CX2")),
    ]
    FarmJobs(engine).submit(OF_FARM, jobs, "ana@lab", "0.1.0", lambda _: None)


def _fill_nights(engine: sa.Engine, words: Words) -> None:
    night = sample_night()
    for number in range(NIGHTS - 4, NIGHTS - 1):
        began, cases = FIRST + timedelta(days=number), ("restyle", "sticker")
        measured = tuple(replace(measurement(case, "s25", number), environment={words("Android"): words("15")}) for case in cases)
        keep_night(
            engine, replace(night, night_id=night_id(number), began_at=began, ended_at=began, measurements=measured, rulings=())
        )
    rulings = tuple(
        replace(ruling, cause=words(ruling.cause), address=words(ruling.address), owner=words("ana")) for ruling in night.rulings
    )
    measured = tuple(replace(one, address=words(one.address), caveats=(Caveat.THROTTLED,)) for one in night.measurements)
    keep_night(engine, replace(night, rulings=rulings, measurements=measured, version=words("0.1.0")))
    word = Acknowledgement(
        case="restyle",
        night=NIGHT,
        reason=words("four more steps"),
        owner=words("ana"),
        made_at=max(ruling.told_at for ruling in rulings),  # after the night's report
        since=FIRST,
        until=datetime(2030, 1, 1, tzinfo=UTC),
    )
    NightStore(engine).acknowledge(word)
