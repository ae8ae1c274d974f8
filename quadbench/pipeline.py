"""Pipeline: a recipe and device addresses -> records and a report. The only module that knows the order of the stages."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench.artifacts import (
    Bundle,
    CompiledBundle,
    Deployment,
    ErrorClass,
    LaunchPlan,
    RunRecord,
    RunResult,
    Status,
    Stored,
    Variant,
)
from quadbench.artifacts.parts import file_refs, has_own_graphs, has_references, item_counts
from quadbench.compile.availability import require
from quadbench.devices import Device, HostedPhone, connect, hosted_phones
from quadbench.errors import DeviceError, HarnessError, QuadbenchError, extra_needed
from quadbench.farm.held import Held, held, leased
from quadbench.measure import LaunchSettings, Queue, launches_of, measure_hosted, measure_launches, planned_turns
from quadbench.observer import Observer
from quadbench.quad.cache import cached
from quadbench.quad.candidate import Candidate
from quadbench.quad.named import check_devices
from quadbench.recipe import Recipe, Terms, recipe_digest
from quadbench.report import write_report
from quadbench.results.admitted import save_admitted
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, read_manifest, temporary_folder
from quadbench.results.records import Records, open_records
from quadbench.results.runs import keep_record, load_run, new_id, new_run_file, save_run
from quadbench.rollout import Rollout, compile_for, roll_out
from quadbench.rollout.equipment import require_cores, require_equipment
from quadbench.target.known import PHONE_MACHINE, KnownTarget
from quadbench.target.targets import target_key

if TYPE_CHECKING:
    from quadbench.quad.admit import Admission

_FINE = {Status.OK, Status.DISCARDED}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one run. `failures` has the devices that were left out, with the reason."""

    result: RunResult
    report: Path
    failures: dict[str, QuadbenchError]

    @property
    def is_ok(self) -> bool:
        """Say whether every device took part and every launch is OK, or was discarded and repeated."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """Return 0, or the exit code of the first failure: of a device that was left out, else of a launch."""
        if self.failures:
            return next(iter(self.failures.values())).exit_code
        first = next((record for record in self.result.records if record.status not in _FINE), None)
        if first is None:
            return 0
        return DeviceError.exit_code if first.error_class is ErrorClass.DEVICE else HarnessError.exit_code


def run(
    recipe: Recipe, addresses: Sequence[str], *, swept: Mapping[str, str] | None = None, layout: Layout, observer: Observer
) -> Outcome:
    """Build, compile, deploy, measure, store and report. Every record is stored as soon as it is there.

    A device that fails is left out and named in the outcome; the others go on. `swept` are values that a sweep has set.

    Raises:
        QuadbenchError: nothing could be built, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored.
    """
    check_devices(recipe)

    def bundles_of(profiles: Sequence[str]) -> Mapping[str, Stored[Bundle]]:
        return built_for(recipe, profiles, layout=layout, observer=observer)

    return _run(recipe.name, bundles_of, replace(recipe.terms, swept=dict(swept or {})), addresses, layout, observer)


def run_bundle(bundle: Stored[Bundle], terms: Terms, addresses: Sequence[str], *, layout: Layout, observer: Observer) -> Outcome:
    """Do the same with a bundle that is there, on all devices. Baselines of a graph per task are left out where a task has none.

    Raises:
        QuadbenchError: every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored.
    """
    of_all = has_own_graphs(bundle.artifact)  # to the base's weights any adapter can be added
    own = replace(terms, baselines=tuple(name for name in terms.baselines if of_all or Variant(name) is Variant.MERGED_AT_LOAD))
    return _run(bundle.artifact.recipe_name, lambda profiles: dict.fromkeys(profiles, bundle), own, addresses, layout, observer)


def _run(
    name: str,
    bundles_of: Callable[[Sequence[str]], Mapping[str, Stored[Bundle]]],
    terms: Terms,
    addresses: Sequence[str],
    layout: Layout,
    observer: Observer,
) -> Outcome:
    phones = hosted_phones(addresses)
    for phone in phones:
        require(phone.target, phone.address)
    with (
        _reached(addresses, phones, layout) as devices,
        open_records(database_of(layout)) as records,
        held(devices, records.engine, f"run of {name}") as leases,
    ):
        require_equipment(devices, layout)
        require_cores(terms.runtime.cores, devices)
        bundles = bundles_of([device.profile.name for device in devices] + [phone.profile.name for phone in phones])
        rollout = _rolled_out(bundles, devices, layout, observer, leases) if devices else None
        run_id = new_id()
        deployments = rollout.deployments if rollout else ()
        work = _Run(terms=terms, run_id=run_id, bundles=bundles, layout=layout, records=records, leases=leases, observer=observer)
        planned = Counter(launch.variant for launch in work.launches)
        begun = new_run_file(run_id, bundles, terms, deployments=deployments, planned=planned)
        save_run(layout, begun)
        if rollout:
            work.measure(rollout)
        failures = (rollout.failures if rollout else {}) | work.measure_hosted(phones)
        if not rollout and len(failures) == len(phones):
            raise next(iter(failures.values()))
        save_run(layout, replace(begun, is_ended=True))
    result = load_run(layout, run_id)
    return Outcome(result=result, report=write_report(result, layout), failures=failures)


def built(recipe: Recipe, *, layout: Layout, observer: Observer) -> Stored[Bundle]:
    """Return the recipe's bundle, which is built if it is not there yet.

    Raises:
        QuadbenchError: the recipe cannot be built, or the bundle that is there is damaged.
    """
    bundle = cached(recipe, layout)
    if bundle:
        observer.reused("bundle", bundle.artifact.digest)
        return bundle
    with extra_needed("quad"):
        from quadbench.quad.build import build
    bundle = build(recipe, layout, notify=partial(observer.step, "build"))
    observer.built(bundle.artifact)
    return bundle


def built_for(recipe: Recipe, profiles: Sequence[str], *, layout: Layout, observer: Observer) -> dict[str, Stored[Bundle]]:
    """Return for each device profile the bundle that its devices run; those not there yet are built, doing once what they share.

    Raises:
        QuadbenchError: as `built`.
    """
    recipes = {profile: recipe.on(profile) for profile in profiles}
    unlike = {recipe_digest(own): own for own in recipes.values()}
    if len(unlike) > 1:
        build_all(list(unlike.values()), layout=layout, observer=observer)
    bundles = {digest: built(own, layout=layout, observer=observer) for digest, own in unlike.items()}
    return {profile: bundles[recipe_digest(own)] for profile, own in recipes.items()}


def build_all(recipes: Sequence[Recipe], *, layout: Layout, observer: Observer) -> None:
    """Build those that are not there yet, doing once what they share.

    Raises:
        QuadbenchError: a recipe cannot be built; what was built before is kept.
    """
    unlike = {recipe_digest(recipe): recipe for recipe in recipes}
    missing = [recipe for recipe in unlike.values() if not cached(recipe, layout)]
    if not missing:
        return
    with extra_needed("quad"):
        from quadbench.quad.build import build
        from quadbench.quad.intermediates import Intermediates
    with temporary_folder(layout.scratch) as scratch:
        intermediates = Intermediates(scratch)
        for number, recipe in enumerate(missing, start=1):
            which = f"{number} of {len(missing)}"
            build(recipe, layout, notify=partial(_tell_step, observer, which), intermediates=intermediates)


def compiled(source: Recipe | Path, target: KnownTarget, *, layout: Layout, observer: Observer) -> Stored[CompiledBundle]:
    """Compile a recipe, which is built if it has to be, or the bundle in a folder.

    Raises:
        MissingDependencyError: the target cannot be compiled for here; nothing was built.
        BuildError, ArtifactError: as `compile_bundle`.
    """
    require(target.target, target.key)
    match source:
        case Path():
            bundle = read_manifest(source, Bundle)
        case Recipe():
            bundle = built(source, layout=layout, observer=observer)
    return compile_for(bundle, target.target, target.key, target.htp_arch, layout=layout, observer=observer)


def admit(
    candidate: Candidate, bundle: Stored[Bundle], addresses: Sequence[str], *, layout: Layout, observer: Observer
) -> "tuple[Admission, tuple[Deployment, ...]]":
    """Judge an adapter under a bundle's profile. If admitted, add it, remember the new bundle, and push it to devices, if any.

    Raises:
        QuadbenchError: the adapter cannot be read or has no place in the base, or every device failed.
    """
    with extra_needed("quad"):
        from quadbench.quad.admit import admit as admit_adapter
    admission = admit_adapter(candidate, bundle)
    if admission.extended is None:
        return admission, ()
    save_admitted(layout, admission.extended)
    if not addresses:
        return admission, ()
    with connect(addresses, layout=layout) as devices, leased(devices, layout, "admission of an adapter"):
        require_equipment(devices, layout)
        everywhere = [admission.extended] * len(devices)
        rollout = roll_out(everywhere, devices, layout=layout, observer=observer, runs_float=False)
    return admission, rollout.deployments


def _rolled_out(
    bundles: Mapping[str, Stored[Bundle]], devices: Sequence[Device], layout: Layout, observer: Observer, leases: Held
) -> Rollout:
    everywhere = [bundles[device.profile.name] for device in devices]
    return roll_out(everywhere, devices, layout=layout, observer=observer, left_out=leases.note_left_out)


def _reached(addresses: Sequence[str], hosted: Sequence[HostedPhone], layout: Layout) -> AbstractContextManager[list[Device]]:
    """Connect the devices that are not at AI Hub. Without any address it is for `connect` to say what is missing."""
    elsewhere = {phone.address for phone in hosted}
    reached = [address for address in addresses if address.strip() not in elsewhere]
    return connect(reached, layout=layout) if reached or not hosted else nullcontext([])


def _tell_step(observer: Observer, which: str, step: str) -> None:
    observer.step("build", f"{which}: {step}")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run under way, its bundles built: by device profile the one that its devices run."""

    terms: Terms
    run_id: str
    bundles: Mapping[str, Stored[Bundle]]
    layout: Layout
    records: Records
    leases: Held
    observer: Observer

    @property
    def launches(self) -> Sequence[LaunchPlan]:
        """Return what each connected device runs."""
        content = next(iter(self.bundles.values())).artifact  # of inputs and references all have the same
        return launches_of(self.terms, item_counts(content), has_references=has_references(content))

    def measure(self, rollout: Rollout) -> None:
        """Measure on the devices that are connected."""
        # The pictures that each launch is compared with, and what no device takes.
        for bundle in {installation.bundle.folder: installation.bundle for installation in rollout.installations}.values():
            check_contents(bundle, file_refs((bundle.artifact.tasks, bundle.artifact.profile)))
        measure = self.terms.measure
        settings = LaunchSettings(
            run_id=self.run_id,
            layout=self.layout,
            runtime=self.terms.runtime,
            timeout_s=measure.timeout_s,
            gate=measure.gate,
            confirm=self.leases.confirm,
        )
        retries = settings.gate.retries if measure.order == "abba" else 0
        queues = [
            Queue(device=one.device, turns=planned_turns(one, self.launches, settings, retries=retries))
            for one in rollout.installations
        ]
        measure_launches(queues, keep=self._keep, observer=self.observer)

    def measure_hosted(self, phones: Sequence[HostedPhone]) -> dict[str, QuadbenchError]:
        """Compile for phones at AI Hub and run the graphs there. Return by address why some gave no records."""
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
        bundle = self.bundles[phone.profile.name]
        product = compile_for(bundle, phone.target, key, htp_arch, layout=self.layout, observer=self.observer)
        check_contents(product, file_refs(product.artifact.graphs))  # no device checks what is uploaded
        return measure_hosted(
            bundle.artifact,
            product,
            phone,
            run_id=self.run_id,
            iterations=self.terms.measure.iterations,
            ledger=self.layout.ledger,
            notify=lambda step: self.observer.step("profile", f"{phone.address}: {step}"),
        )

    def _keep(self, record: RunRecord) -> None:
        keep_record(self.records, record, self.layout, self.leases.guard(record.device.address))
        self.leases.note_record(record)
        self.observer.record(record)
