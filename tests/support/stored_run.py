"""A stored run: a results folder with a run of two tasks on a virtual phone, without its pictures."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from quadbench.artifacts import Bundle
from quadbench.devices.local import open_local
from quadbench.results.layout import Layout
from quadbench.results.manifest import publish
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, save_run
from support.scripted_harness import World
from support.synthetic_run import make_run

RUN = "20260102-030405-quickstart"


def store_run(world: World) -> Layout:
    """Store the run in the world's results folder, which is returned."""
    layout = world.layout
    stored = publish(layout.bundles / "b0", lambda folder: copied_bundle(world, folder))
    save_run(layout, RunFile(run_id=RUN, bundle=stored.folder.name, deployments=(), is_ended=True))
    layout.database.write_bytes(_database())
    return layout


def stored_below(folder: Path) -> Layout:
    """Store the run in a results folder below a folder, which is returned."""
    with open_local(Layout(folder / "results")) as device:
        return store_run(World(folder / "bundle", device))


@cache
def _database() -> bytes:
    """The database with the run's records, which is filled once for all tests of a process."""
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        with open_records(layout.database) as records:
            for record in make_run(layout.root).records:
                records.store(record)
        return layout.database.read_bytes()


def copied_bundle(world: World, folder: Path) -> Bundle:
    """Copy the files of the world's bundle into a folder."""
    for path in world.folder.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(world.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return world.bundle
