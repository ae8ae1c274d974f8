"""Pipeline: a recipe and device addresses -> records and a report. The only module that knows the order of the stages."""

import logging
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from quadbench.artifacts import Bundle, Deployment, RunRecord, RunResult, Status
from quadbench.compile import Compiled, compile_bundle
from quadbench.deploy import LocalFile, deploy
from quadbench.device_profile import Target, load_profile, local_profile, target_key
from quadbench.devices import Device, connect
from quadbench.errors import MissingDependencyError, QuadbenchError
from quadbench.harness import ensure_harness, runtime_library
from quadbench.manifest import file_refs, sha256_of
from quadbench.measure import LaunchAborted, measure_launch
from quadbench.plan import DevicePlan, LaunchPlan, PlannedDevice, make_plan
from quadbench.recipe import Recipe
from quadbench.records import Records, open_records
from quadbench.report import write_report
from quadbench.runs import RunFile, load_run, save_run

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told what happens while it happens; may be called from several threads."""

    def step(self, stage: str, detail: str) -> None: ...

    def reused(self, stage: str, digest: str) -> None: ...

    def sent(self, device: str, sent_bytes: int, total_bytes: int) -> None: ...

    def deployed(self, deployment: Deployment) -> None: ...

    def launch(self, device: str, launch: LaunchPlan, number: int, total: int) -> None: ...

    def record(self, record: RunRecord) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run gave. `failures` are the devices that were left out, with the reason."""

    result: RunResult
    report: Path
    failures: dict[str, QuadbenchError]

    @property
    def is_ok(self) -> bool:
        return not self.failures and all(record.status is Status.OK for record in self.result.records)


def run(recipe: Recipe, addresses: Sequence[str], *, results: Path, observer: Observer) -> Outcome:
    """Build, compile, deploy, measure, store and report. Every record is stored as soon as it is there.

    A device that fails is left out and named in the outcome; the others go on.

    Raises:
        QuadbenchError: nothing could be built, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored.
    """
    with connect(addresses, results=results) as devices, open_records(results / "quadbench.sqlite") as records:
        observer.step("harness", "")
        harness, runtime = ensure_harness(results / "harness"), runtime_library()
        bundle, folder = _built(recipe, results, observer)
        targets = {device.facts.address: _target(device) for device in devices}
        compiled = {
            key: _compiled(bundle, folder, target, key, results, observer) for target, key in dict.fromkeys(targets.values())
        }
        plan = make_plan(
            recipe,
            [PlannedDevice(address=address, target=key) for address, (_, key) in targets.items()],
            {task.name: len(task.items) for task in bundle.tasks},
        )
        run_id = _new_run_id()
        work = _Run(
            recipe=recipe,
            run_id=run_id,
            bundle=bundle,
            folder=folder,
            compiled=compiled,
            harness=harness,
            runtime=runtime,
            results=results,
            records=records,
            observer=observer,
        )
        deployments, failures = work.deploy_all(devices, plan.devices)
        save_run(results, RunFile(run_id=run_id, bundle=folder.name, deployments=tuple(deployments.values())))
        ready = [device for device in devices if device.facts.address in deployments]
        work.measure_all(ready, plan.devices, deployments)
        result = load_run(results, records, run_id)
        return Outcome(result=result, report=write_report(result, results), failures=failures)


def report(run_id: str | None, *, results: Path) -> tuple[RunResult, Path]:
    """Write the report of a stored run again; None is the latest."""
    with open_records(results / "quadbench.sqlite") as records:
        result = load_run(results, records, run_id)
    return result, write_report(result, results)


def _built(recipe: Recipe, results: Path, observer: Observer) -> tuple[Bundle, Path]:
    from quadbench.quad.cache import cached  # light: whether there is anything to build needs no torch

    found = cached(recipe, results / "bundles")
    if found:
        observer.reused("bundle", found[0].digest)
        return found
    try:
        from quadbench.quad.build import build
    except ImportError as error:
        raise MissingDependencyError(
            f"building needs the package '{error.name}'",
            hint="pip install 'quadbench[quad]', or run a bundle that was built before",
        ) from error
    return build(recipe, results / "bundles", notify=lambda step: observer.step("build", step))


def _compiled(bundle: Bundle, folder: Path, target: Target, key: str, results: Path, observer: Observer) -> Compiled:
    notify = lambda graph: observer.step("compile", f"{key}: {graph}")  # noqa: E731
    made = compile_bundle(bundle, folder, target, key, results / "compiled", notify=notify)
    if made.is_reused:
        observer.reused(f"compiled for {key}", made.compiled.digest)
    return made


def _target(device: Device) -> tuple[Target, str]:
    """What the device runs, and its name in one word."""
    facts = device.facts
    profile = local_profile() if facts.family == "local" else load_profile(facts.profile)
    target = profile.target if facts.family == "adb" else profile.virtual_target
    machine = device.shell(["uname", "-m"], timeout_s=30).stdout.strip()
    return target, target_key(target, machine)


def _new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run under way."""

    recipe: Recipe
    run_id: str
    bundle: Bundle
    folder: Path
    compiled: dict[str, Compiled]
    harness: Path
    runtime: Path
    results: Path
    records: Records
    observer: Observer

    def deploy_all(
        self, devices: Sequence[Device], plans: Sequence[DevicePlan]
    ) -> tuple[dict[str, Deployment], dict[str, QuadbenchError]]:
        """Push to all devices at once: (deployments, errors) by address. Raises the first error where no device is left."""
        targets = {plan.address: plan.target for plan in plans}
        deployments: dict[str, Deployment] = {}
        failures: dict[str, QuadbenchError] = {}
        with ThreadPoolExecutor(max_workers=len(devices)) as pool:
            pushes = {d.facts.address: pool.submit(self._deploy, d, self.compiled[targets[d.facts.address]]) for d in devices}
            for address, push in pushes.items():
                try:
                    deployments[address] = push.result()
                except QuadbenchError as error:
                    log.error("%s: %s", address, error)
                    failures[address] = error
        if not deployments:
            raise next(iter(failures.values()))
        return deployments, failures

    def _deploy(self, device: Device, compiled: Compiled) -> Deployment:
        address = device.facts.address
        deployment = deploy(
            list(self._files(compiled)), device, progress=lambda sent, total: self.observer.sent(address, sent, total)
        )
        self.observer.deployed(deployment)
        return deployment

    def _files(self, compiled: Compiled) -> Iterator[LocalFile]:
        """What the harness opens: graphs, adapters, tables and inputs; references and truths stay here."""
        bundle = self.bundle
        floats = [graph for graph in bundle.graphs if not graph.variant.is_quantized]
        tasks = [(t.table, t.tensors, *((item.image, item.mask) for item in t.items)) for t in bundle.tasks]
        for folder, parts in ((compiled.folder, compiled.compiled.graphs), (self.folder, (*floats, *bundle.adapters, *tasks))):
            for file in file_refs(tuple(parts)):
                yield LocalFile(path=folder / file.path, sha256=file.sha256, size_bytes=file.size_bytes)
        for program, executable in ((self.harness, True), (self.runtime, False)):
            size = program.stat().st_size
            yield LocalFile(path=program, sha256=sha256_of(program), size_bytes=size, executable=executable)

    def measure_all(self, devices: Sequence[Device], plans: Sequence[DevicePlan], deployments: dict[str, Deployment]) -> None:
        """Phones at the same time, each in a thread; devices that share this machine's CPU one after the other, here."""
        by_address = {plan.address: plan for plan in plans}
        here = [device for device in devices if device.shares_host_cpu]
        phones = [device for device in devices if not device.shares_host_cpu]
        with _closed_on_interrupt(phones), ThreadPoolExecutor(max_workers=max(1, len(phones))) as pool:
            work = [(device, by_address[device.facts.address], deployments[device.facts.address]) for device in (*phones, *here)]
            pending = [pool.submit(self._measure, *entry) for entry in work[: len(phones)]]
            for entry in work[len(phones) :]:
                self._measure(*entry)
            for measured in pending:
                measured.result()

    def _measure(self, device: Device, plan: DevicePlan, deployment: Deployment) -> None:
        for number, launch in enumerate(plan.launches, start=1):
            self.observer.launch(plan.address, launch, number, len(plan.launches))
            try:
                record = measure_launch(
                    bundle=self.bundle,
                    bundle_folder=self.folder,
                    compiled=self.compiled[plan.target].compiled,
                    deployment=deployment,
                    device=device,
                    launch=launch,
                    run_id=self.run_id,
                    harness_sha256=sha256_of(self.harness),
                    runtime_sha256=sha256_of(self.runtime),
                    threads=self.recipe.measure.threads,
                    timeout_s=self.recipe.measure.timeout_s,
                    results=self.results,
                )
            except LaunchAborted as aborted:
                self._keep(aborted.record)
                raise
            self._keep(record)

    def _keep(self, record: RunRecord) -> None:
        self.records.store(record)
        self.observer.record(record)


@contextmanager
def _closed_on_interrupt(devices: Sequence[Device]) -> Iterator[None]:
    """On Ctrl-C end what runs on the phones, so that their threads end too: each stores its launch as it was cut off."""
    try:
        yield
    except KeyboardInterrupt:
        for device in devices:
            device.close()
        raise
