"""Live lab: a results folder -> the same with runs, nights, a farm and work under way, in which people's words are any text."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from quadbench.artifacts import Bundle, Caveat, FileRef, RunRecord, TaskItem
from quadbench.artifacts.night_record import Acknowledgement
from quadbench.farm.health import quarantined
from quadbench.farm.inventory import Inventory, Sighting
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import Leases
from quadbench.farm.workers import NewWorker, WorkerDevice, Workers
from quadbench.host import process_identity
from quadbench.results.digests import sha256_of
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout
from quadbench.results.manifest import publish
from quadbench.results.nights import NightStore
from quadbench.results.progress import DeviceProgress, Progress, Stage, save_progress
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, save_run
from support.night_samples import FIRST, NIGHTS, measurement, night_id, sample_night
from support.synthetic_run import S25, TABS11, failed, make_run

RUN = "20260102-030405-quickstart"
AT_WORK = "20260102-040506-abcd"
OF_FARM = "20260102-050607-abcd"
NIGHT = night_id(NIGHTS - 1)
Words = Callable[[str], str]


def plain(text: str) -> str:
    return text


def fill(layout: Layout, words: Words = plain, *, with_run: bool = True) -> None:
    """Fill a results folder and its database. `words` makes of each text that comes from outside another one."""
    layout.root.mkdir(parents=True, exist_ok=True)
    engine = open_engine(database_of(layout))
    try:
        _fill_farm(engine, words)
        _fill_nights(NightStore(engine), words)
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
    device = WorkerDevice(name="local@lab-1", address=words("local"), labels={"profile": words("local")})
    name, version = words("lab-1"), words("0.1.0")
    worker = NewWorker(name=name, host=words("lab-1"), version=version, capabilities=(words("build"),), devices=(device,))
    Workers(engine).note(worker)
    jobs = [NewJob(kind=JobKind.BUILD, needs="build"), NewJob(kind=JobKind.MEASURE, needs="s25", after=(0,))]
    JobQueue(engine).submit(OF_FARM, jobs, "ana@lab", "0.1.0")


def _fill_nights(nights: NightStore, words: Words) -> None:
    night = sample_night()
    for number in range(NIGHTS - 4, NIGHTS - 1):
        began, cases = FIRST + timedelta(days=number), ("restyle", "sticker")
        measured = tuple(replace(measurement(case, "s25", number), environment={words("Android"): words("15")}) for case in cases)
        nights.import_night(
            replace(night, night_id=night_id(number), began_at=began, ended_at=began, measurements=measured, rulings=())
        )
    rulings = tuple(
        replace(ruling, cause=words(ruling.cause), address=words(ruling.address), owner=words("ana")) for ruling in night.rulings
    )
    measured = tuple(replace(one, address=words(one.address), caveats=(Caveat.THROTTLED,)) for one in night.measurements)
    nights.import_night(replace(night, rulings=rulings, measurements=measured, version=words("0.1.0")))
    word = Acknowledgement(
        case="restyle",
        night=NIGHT,
        reason=words("four more steps"),
        owner=words("ana"),
        made_at=FIRST,
        since=FIRST,
        until=datetime(2030, 1, 1, tzinfo=UTC),
    )
    nights.acknowledge(word)
