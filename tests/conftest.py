"""What several tests share: the tiny model, and its bundle, built once."""

import fcntl
import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.browser import chromium
from support.postgresql_server import PostgresqlServer, running_postgresql
from support.s3_server import S3Server, running_s3
from support.scripted_harness import World

from quadbench.artifacts import RunRecord, StoredBundle
from quadbench.devices import adb_commands
from quadbench.devices.local import open_local
from quadbench.farm.store.objects import Store
from quadbench.farm.store.opening import open_store
from quadbench.harness.program import ensure_harness
from quadbench.recipe.recipe import load_recipe
from quadbench.results.engine import Source, open_engine
from quadbench.results.layout import Layout

if TYPE_CHECKING:
    import sqlalchemy as sa
    from diffusers import UNet2DConditionModel
    from playwright.sync_api import Browser
    from support.adapter_files import Known
    from support.adb_link import Phone
    from support.ai_hub_graphs import Sources
    from support.ai_hub_service import AiHubService
    from support.live_site import Site

    from quadbench.quad.model.foundation import Foundation

pytest_plugins = ["support.sentences", "support.lacking"]
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: its threads cost more than the tiny model's operators
# Tests keep nothing in somebody's database or store, and no terminal of somebody's is as wide as what they print.
for name in ("QUADBENCH_DATABASE", "QUADBENCH_STORE", "COLUMNS"):
    os.environ.pop(name, None)
# A shell that starts the tests in the background has them ignore Ctrl-C, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a virtual device a command's output is read more often than on a phone, whose cores must not be woken.
adb_commands._READ = adb_commands._READ.replace(f"sleep {adb_commands.POLL_S}", "sleep 0.1")

_FIRST_TEST = pytest.StashKey[float]()
RESULTS = Path(__file__).resolve().parent.parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--begin-within", type=float, metavar="SECONDS", help="skip tests that would begin later after the first")


def pytest_runtest_setup(item: pytest.Item) -> None:
    limit_s = item.config.getoption("--begin-within")
    since = item.session.stash.setdefault(_FIRST_TEST, time.monotonic())
    for module in (item.module, sys.modules.get("support.small_graphs")):
        if generator := getattr(module, "RNG", None):  # a test draws the same, whatever ran before it in its process
            generator.bit_generator.state = np.random.default_rng(0).bit_generator.state
    if limit_s is not None and time.monotonic() - since > limit_s:
        pytest.skip(f"not begun within {limit_s:g} s")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that need the tiny bundle: one of the processes builds it while another has other files."""
    needing = {item.path for item in items if "tiny_bundle" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in needing)


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection, and collect seldom: torch alone has a million objects to look through."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@contextmanager
def _shared_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Give a folder that all processes of these tests share to one of them at a time."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """recipe.yaml of the tiny model, in a folder with all that it names. Not to be changed: copy the folder."""
    pytest.importorskip("torch")
    from support.tiny_model import write_tiny_model

    with _shared_folder(tmp_path_factory, "tiny-recipe") as folder:
        path = folder / "tiny" / "recipe.yaml"
        return path if path.exists() else write_tiny_model(path.parent)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredBundle:
    """The tiny model's bundle, alone in a results folder. Not to be changed."""
    from quadbench.quad.build import build
    from quadbench.quad.cache import find_bundle

    recipe = load_recipe(tiny_recipe)
    with _shared_folder(tmp_path_factory, "tiny-results") as folder:
        layout = Layout(folder / "results")
        return find_bundle(recipe, layout) or build(recipe, layout)


@pytest.fixture(scope="module")
def foundation(tiny_recipe: Path) -> "Foundation":
    """The tiny model, as it is loaded. Not to be changed."""
    from quadbench.quad.model.foundation import load_foundation

    return load_foundation(tiny_recipe.parent / "model")


@pytest.fixture(scope="module")
def unet(foundation: "Foundation") -> "UNet2DConditionModel":
    """The tiny model's U-Net."""
    return foundation.unet


@pytest.fixture(scope="module")
def known(unet: "UNet2DConditionModel") -> dict[str, "Known"]:
    """LoRA pairs at sites of every kind, with different ranks and alphas, some without alpha."""
    from support.adapter_files import draw_pairs

    return draw_pairs(unet)


@pytest.fixture(scope="session")
def harness() -> Path:
    """The native harness, built once for this machine."""
    return ensure_harness(Layout(RESULTS).programs)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Debian's chromium. For one module, as its driver runs an event loop in this thread for as long."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def filled_lab(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A lab with runs, nights and a farm. Not to be changed: copy the folder."""
    from support.live_lab import fill

    layout = Layout(tmp_path_factory.mktemp("lab"))
    fill(layout)
    return layout


@pytest.fixture
def own_lab(filled_lab: Layout, tmp_path: Path) -> Layout:
    """A copy of that lab, with work under way, in a folder `lab`."""
    from support.live_lab import copied

    return copied(filled_lab, tmp_path / "lab")


@pytest.fixture(scope="module")
def site(filled_lab: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Site"]:
    """The live page of a lab with runs, nights, a farm and work under way."""
    pytest.importorskip("starlette")
    from support.live_lab import copied, pool_of_lab
    from support.live_site import served

    with served(copied(filled_lab, tmp_path_factory.mktemp("site") / "lab"), pool=pool_of_lab) as site:
        yield site


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs, adapters, tables, tensors and images; tests that change one write it elsewhere."""
    pytest.importorskip("onnx")
    from support.harness_scene import write_assets

    folder = tmp_path_factory.mktemp("assets")
    write_assets(folder)
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A results folder that is not there yet."""
    return Layout(tmp_path / "results")


@pytest.fixture
def here(tmp_path: Path) -> Layout:
    """The results folder of a host that sends."""
    return Layout(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Layout:
    """The results folder of a host that fetches."""
    return Layout(tmp_path / "there")


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    """The first record of a synthetic run."""
    from support.synthetic_run import make_run

    return make_run(tmp_path).records[0]


@pytest.fixture
def plan(assets: Path, tmp_path: Path) -> dict[str, Any]:
    """Of the shared variant, for one test to change."""
    from support.harness_scene import shared_plan

    return shared_plan(assets, tmp_path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["AiHubService"]:
    """AI Hub on loopback, asked without the client's waits."""
    from support.ai_hub_graphs import hurried_service

    with hurried_service(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def hub_graphs(tmp_path: Path) -> "Sources":
    """What is compiled there."""
    from support.ai_hub_graphs import write_graphs

    return write_graphs(tmp_path / "bundle")


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Phone"]:
    """A phone whose connection can be cut."""
    from support.adb_link import linked_phone

    with linked_phone(tmp_path, monkeypatch) as linked:
        yield linked


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A bundle on this machine, ready for a scripted harness."""
    with open_local(Layout(tmp_path / "results")) as device:
        yield World(tmp_path / "bundle", device)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server, started once. Skips where there is none."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def file_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file whose tables are empty. Not to be changed: copy it."""
    path = tmp_path_factory.mktemp("tables") / "quadbench.sqlite"
    open_engine(path).dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, file_with_tables: Path) -> Source:
    """An empty database of each engine in turn: a file or a URL. It is not made yet where no fixture opens it."""
    is_opened = not {"engine", "records"}.isdisjoint(request.fixturenames)
    if request.param == "sqlite":
        path = tmp_path / "results" / "quadbench.sqlite"
        if is_opened:
            path.parent.mkdir()
            shutil.copyfile(file_with_tables, path)
        return path
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.new_database_with_tables() if is_opened else server.new_database()


@pytest.fixture
def engine(database: Source) -> Iterator["sa.Engine"]:
    """That database, open."""
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 service on loopback, started once. Skips where moto or s3fs is not installed."""
    with running_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 service, with the variables by which AWS's libraries reach it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with nothing in it, in a folder and in a bucket in turn."""
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        return open_store(tmp_path / "store")
    server: S3Server = request.getfixturevalue("s3")
    return open_store(server.new_bucket())
