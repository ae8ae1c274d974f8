"""Submit a run of a recipe or bundle to a farm: send needed artifacts to the store, and add the jobs to the queue."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import sqlalchemy as sa
import yaml

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.dispatch.demands import Asked, asked_for, demands_of
from quadbench.dispatch.orders import BuildOrder, MeasureOrder
from quadbench.dispatch.plan import planned
from quadbench.errors import UserError
from quadbench.farm.jobs import JobQueue
from quadbench.farm.leases import Leases
from quadbench.farm.store.artifacts import is_stored, send
from quadbench.farm.store.objects import Store
from quadbench.farm.store.opening import required_store
from quadbench.farm.workers import WorkerDevice, Workers
from quadbench.host import user_and_host
from quadbench.observer import Observer
from quadbench.pipeline import DEFAULT_RUN, RunOptions, work_of_bundle
from quadbench.quad.cache import digests_of, find_bundle
from quadbench.quad.inputs import check_devices
from quadbench.recipe import Recipe, RunSettings
from quadbench.results.engine import database_of, open_engine, schema_of, source_name
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import new_id
from quadbench.spec.spec_model import WHOLE_PATHS


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Access to a farm: a SQLAlchemy engine for the database that all hosts share, and the shared artifact store."""

    engine: sa.Engine
    store: Store

    @property
    def devices(self) -> Sequence[WorkerDevice]:
        """Return the devices of all live workers. Devices that no job or person has claimed come first."""
        standing = Leases(self.engine).standing()
        devices = [device for known in Workers(self.engine).known() if known.is_here for device in known.worker.devices]
        return sorted(devices, key=lambda device: device.name in standing)


@contextmanager
def open_farm(layout: Layout) -> Iterator[Farm]:
    """Yield a Farm: the store in $QUADBENCH_STORE, the database in $QUADBENCH_DATABASE or by default in the results folder.

    Raises:
        UserError: no store is named, or the database has no tables yet.
        QuadbenchError: the database or the store cannot be reached.
    """
    store, source = required_store(), database_of(layout)
    if schema_of(source) is None:
        hint = "begin it first: quadbench farm init, or on one host a worker: quadbench farm worker"
        raise UserError(f"{source_name(source)} is no farm, as it has no tables", hint=hint)
    engine = open_engine(source)
    try:
        yield Farm(engine=engine, store=store)
    finally:
        engine.dispose()


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options for a farm run: `words` (the values of --devices), `conduct` (retries, waits, time limit), and job priority."""

    words: tuple[str, ...]
    conduct: RunOptions = DEFAULT_RUN
    priority: int = 0


def submit(recipe: Recipe, request: Request, farm: Farm, *, layout: Layout, observer: Observer) -> str:
    """Submit a recipe to a farm and return the run's id. Add one build job for each bundle missing both here and in the store.

    Raises:
        UserError: the recipe, or a file it names, is wrong.
        DeviceNotFoundError: the farm has no such devices.
        StorageError, ArtifactError: the store or the database fails; no job was submitted.
    """
    check_devices(recipe)
    asked = asked_for(request.words, farm.devices)
    recipes = {profile: recipe.for_device(profile) for profile in _profiles(asked)}
    digests = {profile: digests_of(own).bundle for profile, own in recipes.items()}
    unlike = {digests[profile]: own for profile, own in recipes.items()}
    builds = [order for digest, own in unlike.items() if (order := to_build(digest, own, farm.store, layout, observer))]
    return _submitted(recipe.name, recipe.terms, asked, digests, builds, request, farm)


def submit_bundle(bundle: StoredBundle, terms: RunSettings, request: Request, farm: Farm) -> str:
    """Send a bundle to a farm's store, submit a run that measures the bundle, and return the run's id.

    Raises:
        DeviceNotFoundError: the farm has no such devices.
        StorageError, ArtifactError: the store or the database fails; no job was submitted.
    """
    asked = asked_for(request.words, farm.devices)
    send(bundle, farm.store)
    work = work_of_bundle(bundle, terms)
    digests = dict.fromkeys(_profiles(asked), bundle.artifact.digest)
    return _submitted(work.name, work.terms, asked, digests, (), request, farm)


def _submitted(
    name: str,
    terms: RunSettings,
    asked: Sequence[Asked],
    digests: Mapping[str, str],
    builds: Sequence[BuildOrder],
    request: Request,
    farm: Farm,
) -> str:
    run_id = new_id()
    order = MeasureOrder(name=name, bundles=dict(digests), terms=terms, conduct=request.conduct)
    jobs = planned(builds, demands_of(asked, order), priority=request.priority)
    JobQueue(farm.engine).submit(run_id, jobs, user_and_host(), version("quadbench"))
    return run_id


def _profiles(asked: Sequence[Asked]) -> list[str]:
    return sorted({device.labels["profile"] for one in asked for device in one.fit})


def to_build(digest: str, recipe: Recipe, store: Store, layout: Layout, observer: Observer) -> BuildOrder | None:
    """Send a recipe's bundle from this machine to the store. Return a BuildOrder if neither has the bundle, else None."""
    if bundle := find_bundle(recipe, layout):
        observer.artifact_reused("bundle", digest)
        send(bundle, store)
        return None
    return None if is_stored(Bundle, digest, store) else BuildOrder(recipe=whole_text(recipe), bundle=digest)


def whole_text(recipe: Recipe) -> str:
    """Return a recipe as YAML text that another host can read. File paths are absolute, and default values are left out."""
    content = recipe.model_dump(mode="json", exclude_defaults=True, context=WHOLE_PATHS)
    for task in content["tasks"]:
        task["adapter"] = task["adapter"] or None  # YAML null means no adapter
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
