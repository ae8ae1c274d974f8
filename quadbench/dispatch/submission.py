"""Submit a run of a recipe or bundle to a farm: send needed artifacts to the store, and a DAG of jobs to the pool."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version

import sqlalchemy as sa
import yaml

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.lab.leases import Leases
from quadbench.dispatch.demands import Asked, asked_for, planned
from quadbench.dispatch.orders import BuildOrder, MeasureOrder
from quadbench.errors import DeviceNotFoundError, QuadbenchError, ServiceError, UserError
from quadbench.farm.condor import Condor, quoted, this_pool
from quadbench.farm.dag import submit_dag
from quadbench.farm.job import Job, NewJob
from quadbench.farm.job_status import open_farm_database
from quadbench.farm.jobs import FarmJobs
from quadbench.farm.slots import Bay, read_slots, why_it_waits
from quadbench.farm.store.artifacts import is_stored, send
from quadbench.farm.store.objects import Store
from quadbench.farm.store.opening import required_store
from quadbench.host import user_and_host
from quadbench.observer import Observer
from quadbench.pipeline import DEFAULT_RUN, RunOptions, work_of_bundle
from quadbench.quad.cache import digests_of, find_bundle
from quadbench.quad.inputs import check_devices
from quadbench.recipe import Recipe, RunSettings
from quadbench.results.engine import name_of
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import new_id
from quadbench.spec.spec_model import WHOLE_PATHS


@dataclass(frozen=True, kw_only=True)
class Farm:
    """Access to a farm: a SQLAlchemy engine for the database that all hosts share, the artifact store, and the HTCondor pool."""

    engine: sa.Engine
    store: Store
    pool: Condor

    @property
    def devices(self) -> Sequence[Bay]:
        """Return the devices of the pool that are present. Devices that are free and reserved by nobody come first."""
        present = [slot for slot in read_slots(self.pool) if slot.bay.address and slot.is_present]
        return [slot.bay for slot in sorted(present, key=lambda slot: bool(slot.why_not_for("")))]

    def submit(self, run_id: str, jobs: Sequence[NewJob], *, may_wait: bool = False) -> list[Job]:
        """Store a run's jobs and submit them to the pool as a DAG. Return them. If anything fails, nothing is stored.

        With `may_wait`, jobs that no slot can run at present are accepted.

        Raises:
            DeviceNotFoundError: no slot of the pool can run one of the jobs.
            QuadbenchError: the pool refuses this user, or pool or database do not answer.
        """
        current = version("quadbench")
        slots = read_slots(self.pool)
        known, mine = {slot.database for slot in slots} - {""}, Leases(self.engine).database_name()
        if known and mine not in known:
            hint = "submit with the $QUADBENCH_DATABASE, or the results folder, that the hosts have"
            raise UserError(f"the hosts of the pool use another database than {name_of(self.engine)}", hint=hint)
        stores = {slot.store for slot in slots} - {""}
        if stores and one_line(self.store.name) not in stores:
            hint = "submit with the $QUADBENCH_STORE that the hosts have"
            raise UserError(f"the hosts of the pool use the store '{min(stores)}', not '{self.store.name}'", hint=hint)
        for job in jobs:
            if not (may_wait or any(slot.serves(job.needs, current) for slot in slots)):
                why = why_it_waits(job.needs, current, user_and_host(), slots)
                raise DeviceNotFoundError(f"the run needs '{job.needs}': {why}", hint="see: quadbench farm status")

        def send(stored: Sequence[Job]) -> None:
            try:
                submit_dag(self.pool, run_id, stored)
            except (ServiceError, KeyboardInterrupt):  # the pool may have the DAG all the same
                with suppress(QuadbenchError):
                    self.pool.remove(f"QuadbenchRun == {quoted(run_id)}", "its submission did not end")
                raise

        return FarmJobs(self.engine).submit(run_id, jobs, user_and_host(), current, send, self.pool.identity)


@contextmanager
def open_farm(layout: Layout) -> Iterator[Farm]:
    """Yield a Farm: the store in $QUADBENCH_STORE, the database in $QUADBENCH_DATABASE or by default in the results folder.

    Raises:
        UserError: no store is named, no pool is configured, or the database has no tables yet.
        QuadbenchError: the database or the store cannot be reached.
    """
    store, pool = required_store(), this_pool()
    with open_farm_database(layout) as engine:
        yield Farm(engine=engine, store=store, pool=pool)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options for a farm run: `words` (the values of --devices) and `conduct` (retries, waits, time limit)."""

    words: tuple[str, ...]
    conduct: RunOptions = DEFAULT_RUN


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
    measure = MeasureOrder(name=recipe.name, bundles=digests, terms=recipe.terms, conduct=request.conduct)
    return _submitted(builds, asked, measure, farm)


def submit_bundle(bundle: StoredBundle, terms: RunSettings, request: Request, farm: Farm) -> str:
    """Send a bundle to a farm's store, submit a run that measures the bundle, and return the run's id. Raise as `submit`."""
    asked = asked_for(request.words, farm.devices)
    send(bundle, farm.store)
    work = work_of_bundle(bundle, terms)
    digests = dict.fromkeys(_profiles(asked), bundle.artifact.digest)
    measure = MeasureOrder(name=work.name, bundles=digests, terms=work.terms, conduct=request.conduct)
    return _submitted((), asked, measure, farm)


def _submitted(builds: Sequence[BuildOrder], asked: Sequence[Asked], measure: MeasureOrder, farm: Farm) -> str:
    run_id = new_id()
    farm.submit(run_id, planned(builds, [(one, measure) for one in asked]))
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
