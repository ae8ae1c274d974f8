"""Pipeline: a recipe and device addresses -> records and a report. The only module that knows the order of the stages."""

import logging
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quadbench.ai_hub import LEDGER
from quadbench.artifacts import Bundle, Deployment, RunRecord, RunResult, Status
from quadbench.compile import Compiled
from quadbench.compile.availability import require
from quadbench.compile.targets import PHONE_MACHINE, KnownTarget
from quadbench.device_profile import target_key
from quadbench.devices import Device, HostedPhone, connect, hosted_phones
from quadbench.errors import QuadbenchError, package_needed
from quadbench.manifest import read_manifest, temporary_folder
from quadbench.measure import LaunchAborted, measure_hosted, measure_launch
from quadbench.observer import Observer
from quadbench.plan import DevicePlan, PlannedDevice, RunPlan, has_references, make_plan
from quadbench.recipe import Recipe
from quadbench.records import Records, open_records
from quadbench.report import write_report
from quadbench.rollout import Rollout, compiled_for, roll_out
from quadbench.runs import RunFile, load_run, save_run, save_scores
from quadbench.scores import RunScores

if TYPE_CHECKING:
    from quadbench.quad.admit import Admission
    from quadbench.quad.inspection import Inspection
    from quadbench.quad.sensitivity import Sensitivity

log = logging.getLogger(__name__)


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
    hosted = hosted_phones(addresses)
    for phone in hosted:
        require(phone.target, phone.address)
    reached = [address for address in addresses if address.strip() not in {phone.address for phone in hosted}]
    connected: AbstractContextManager[list[Device]] = (
        connect(reached, results=results) if reached or not hosted else nullcontext([])
    )
    with connected as devices, open_records(results / "quadbench.sqlite") as records:
        bundle, folder = _bundle(recipe, results, observer)
        rollout = roll_out(bundle, folder, devices, results=results, observer=observer) if devices else None
        run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:4]}"
        deployments = tuple(rollout.deployments.values()) if rollout else ()
        save_run(results, RunFile(run_id=run_id, bundle=folder.name, deployments=deployments, published=recipe.published))
        work = _Run(
            recipe=recipe, run_id=run_id, bundle=bundle, folder=folder, results=results, records=records, observer=observer
        )
        if rollout:
            work.measure_all(rollout, devices)
        failures = (rollout.failures if rollout else {}) | work.measure_hosted(hosted)
        if not rollout and len(failures) == len(hosted):
            raise next(iter(failures.values()))
        result = load_run(results, records, run_id)
        return Outcome(result=result, report=write_report(result, results), failures=failures)


def report(run_id: str | None, *, results: Path) -> tuple[RunResult, Path]:
    """Write the report of a stored run again; None is the latest."""
    with open_records(results / "quadbench.sqlite") as records:
        result = load_run(results, records, run_id)
    return result, write_report(result, results)


def admit(
    source: Path,
    bundle_folder: Path | None,
    addresses: Sequence[str],
    *,
    name: str | None = None,
    results: Path,
    observer: Observer,
) -> "tuple[Admission, tuple[Deployment, ...]]":
    """Judge an adapter under a bundle's profile (None: the latest run's). If admitted, add it and push it to the devices, if any.

    Raises:
        QuadbenchError: the adapter cannot be read or has no place in the base, or every device failed.
    """
    with _needs_quad():
        from quadbench.quad.admit import admit as admit_adapter
    if bundle_folder is None:
        with open_records(results / "quadbench.sqlite") as records:
            bundle_folder = load_run(results, records, None).bundle_folder
    admission = admit_adapter(source, read_manifest(bundle_folder, Bundle), bundle_folder, name=name)
    if not addresses or admission.extended is None:
        return admission, ()
    bundle, folder = admission.extended.bundle, admission.extended.folder
    with connect(addresses, results=results) as devices:
        rollout = roll_out(bundle, folder, devices, results=results, observer=observer)
    return admission, tuple(rollout.deployments.values())


def inspect(source: Path, *, recipe: Recipe | None, bundle_folder: Path | None) -> "tuple[Inspection, Admission | None]":
    """Look at an adapter; with a recipe also at its fit to the foundation model, with a bundle at the verdict of its profile.

    Raises:
        AdapterError: nothing there can be read as an adapter, or a verdict is asked for one that has no place in the bundle.
    """
    with _needs_quad():
        from quadbench.quad.admit import judged
        from quadbench.quad.inspection import inspect_adapter
        from quadbench.quad.prepare import base_of
    inspection = inspect_adapter(source, base_of(recipe) if recipe else None)
    if bundle_folder is None:
        return inspection, None
    return inspection, judged(source, read_manifest(bundle_folder, Bundle), bundle_folder)


def compile_for(source: Recipe | Path, target: KnownTarget, *, results: Path, observer: Observer) -> Compiled:
    """Compile a recipe, which is built if it has to be, or the bundle in a folder.

    Raises:
        MissingDependencyError: the target cannot be compiled for here; nothing was built.
        BuildError, ArtifactError: as `compile_bundle`.
    """
    require(target.target, target.key)
    bundle, folder = (read_manifest(source, Bundle), source) if isinstance(source, Path) else _bundle(source, results, observer)
    return compiled_for(bundle, folder, target.target, target.key, target.htp_arch, results, observer)


def sensitivity(recipe: Recipe, *, lora: Literal["int16", "int8"] | None, observer: Observer) -> "Sensitivity":
    """How sensitive a recipe's adapters are to the rounding of their weights. Nothing is built; None takes the recipe's bits."""
    with _needs_quad():
        from quadbench.quad.analyse import analyse
    return analyse(recipe, lora=lora, notify=lambda step: observer.step("sensitivity", step))


def quality(
    run_id: str | None,
    *,
    metrics: Sequence[str] | None,
    weights: Sequence[str],
    with_latents: bool,
    results: Path,
    observer: Observer,
) -> RunScores:
    """Score the images of a stored run (None: the latest) and keep the scores beside it, where the report finds them.

    `metrics` None are all; `weights` are NAME=PATH@sha256:HEX; latents take the U-Net's runs of every task again, here.

    Raises:
        QuadbenchError: the run's weights are random, an image is damaged, a metric or weights do not fit.
    """
    with _needs_quad("quality"):
        from quadbench.quad.quality import compare_latents, compare_run, parse_weights
    given = {w.name: w for w in map(parse_weights, weights)}
    with open_records(results / "quadbench.sqlite") as records:
        result = load_run(results, records, run_id)
    observer.step("quality", "images")
    compared = compare_run(result, results, metrics=metrics, weights=given)
    if with_latents:
        observer.step("quality", "latents")
        compared += compare_latents(result.bundle, result.bundle_folder)
    scores = RunScores(compared=compared)
    save_scores(results, result.run_id, scores)
    return scores


def quality_of_folders(
    images: Path, references: Path, sources: Path | None, *, metrics: Sequence[str] | None, weights: Sequence[str]
) -> RunScores:
    """Score images of any origin against references of the same names.

    Raises:
        QuadbenchError: the folders do not pair, an image cannot be read, a metric or weights do not fit.
    """
    with _needs_quad("quality"):
        from quadbench.quad.quality import compare_folders, parse_weights
    given = {w.name: w for w in map(parse_weights, weights)}
    return RunScores(compared=(compare_folders(images, references, sources, metrics=metrics, weights=given),))


def build_all(recipes: Sequence[Recipe], *, results: Path, observer: Observer) -> None:
    """Build those that are not there yet, doing once what they share. Raises: QuadbenchError, with what was built before kept."""
    from quadbench.quad.cache import cached

    missing = [recipe for recipe in recipes if not cached(recipe, results / "bundles")]
    if not missing:
        return
    with _needs_quad():
        from quadbench.quad.build import build
        from quadbench.quad.common import Common
    with temporary_folder(results / "bundles" / "scratch") as scratch:
        common = Common(scratch)
        for number, recipe in enumerate(missing, start=1):
            build(recipe, results / "bundles", notify=partial(_tell_step, observer, f"{number} of {len(missing)}"), common=common)


def _tell_step(observer: Observer, which: str, step: str) -> None:
    observer.step("build", f"{which}: {step}")


def _bundle(recipe: Recipe, results: Path, observer: Observer) -> tuple[Bundle, Path]:
    from quadbench.quad.cache import cached  # without torch, so that a run that builds nothing starts at once

    found = cached(recipe, results / "bundles")
    if found:
        observer.reused("bundle", found[0].digest)
        return found
    with _needs_quad():
        from quadbench.quad.build import build
    bundle, folder = build(recipe, results / "bundles", notify=lambda step: observer.step("build", step))
    observer.built(bundle)
    return bundle, folder


def _needs_quad(extra: str = "quad") -> AbstractContextManager[None]:
    return package_needed("this", hint=f"pip install 'quadbench[{extra}]'")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run under way."""

    recipe: Recipe
    run_id: str
    bundle: Bundle
    folder: Path
    results: Path
    records: Records
    observer: Observer

    def measure_all(self, rollout: Rollout, devices: Sequence[Device]) -> None:
        """Phones at the same time, each in a thread; devices that share this machine's CPU one after the other, here."""
        plan_of = {plan.address: plan for plan in self._plan(rollout).devices}
        pushed = [device for device in devices if device.facts.address in rollout.deployments]
        phones = [device for device in pushed if not device.shares_host_cpu]
        with _closed_on_interrupt(phones), ThreadPoolExecutor(max_workers=max(1, len(phones))) as pool:
            pending = [pool.submit(self._measure, rollout, device, plan_of[device.facts.address]) for device in phones]
            for device in pushed:
                if device.shares_host_cpu:
                    self._measure(rollout, device, plan_of[device.facts.address])
            for measured in pending:
                measured.result()

    def measure_hosted(self, phones: Sequence[HostedPhone]) -> dict[str, QuadbenchError]:
        """Compile for phones at AI Hub and run the graphs there. Returns why some gave no records, by address."""
        failures = {}
        for phone in phones:
            try:
                for record in self._hosted_records(phone):
                    self._keep(record)
            except QuadbenchError as error:
                log.info("%s is left out: %s", phone.address, error)
                failures[phone.address] = error
        return failures

    def _hosted_records(self, phone: HostedPhone) -> Sequence[RunRecord]:
        key, htp_arch = target_key(phone.target, PHONE_MACHINE), phone.profile.soc.htp_arch
        made = compiled_for(self.bundle, self.folder, phone.target, key, htp_arch, self.results, self.observer)
        return measure_hosted(
            bundle=self.bundle,
            compiled=made.compiled,
            compiled_folder=made.folder,
            phone=phone,
            run_id=self.run_id,
            iterations=self.recipe.measure.iterations,
            ledger=self.results / LEDGER,
            notify=lambda step: self.observer.step("profile", f"{phone.address}: {step}"),
        )

    def _plan(self, rollout: Rollout) -> RunPlan:
        planned = [PlannedDevice(address=address, target=rollout.targets[address]) for address in rollout.deployments]
        item_counts = {task.name: len(task.items) for task in self.bundle.tasks}
        return make_plan(self.recipe, planned, item_counts, has_references=has_references(self.bundle))

    def _measure(self, rollout: Rollout, device: Device, plan: DevicePlan) -> None:
        for number, launch in enumerate(plan.launches, start=1):
            self.observer.launch(plan.address, launch, number, len(plan.launches))
            try:
                record = measure_launch(
                    bundle=self.bundle,
                    bundle_folder=self.folder,
                    compiled=rollout.compiled[plan.address].compiled,
                    deployment=rollout.deployments[plan.address],
                    device=device,
                    launch=launch,
                    run_id=self.run_id,
                    harness_sha256=rollout.harness.sha256,
                    runtime_sha256=rollout.runtime.sha256,
                    threads=self.recipe.measure.threads,
                    timeout_s=self.recipe.measure.timeout_s,
                    results=self.results,
                    execution_provider=rollout.execution_providers[plan.address],
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
