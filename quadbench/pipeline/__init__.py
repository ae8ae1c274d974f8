"""Run the whole pipeline, from a recipe and device addresses to a report. Only this package knows the order of all stages.

session.py            options and plan of a run, its connected and leased devices; storing records; may it resume
steps.py              deploy, measure, end the run, report; the run's exit code
progress_observer.py  progress files that the live page reads
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench.artifacts import Bundle, Deployment, StoredBundle, StoredCompiled, Variant
from quadbench.artifacts.run_record import file_refs
from quadbench.compile.availability import require
from quadbench.devices import Address, connections, parse_addresses
from quadbench.devices.lab.held import leased
from quadbench.errors import QuadbenchError, requires_extra
from quadbench.observer import Observer
from quadbench.pipeline.session import (
    DEFAULT_RUN,
    RecordHooks,
    RunOptions,
    RunPlan,
    RunSession,
    bundles_of,
    require_devices,
    resumable_bundle,
    run_session,
)
from quadbench.pipeline.steps import RunOutcome, deploy, measure, report, store
from quadbench.quad.cache import find_bundle
from quadbench.quad.candidate import Candidate
from quadbench.quad.inputs import check_devices
from quadbench.recipe import Recipe, RunSettings, recipe_digest
from quadbench.results.bundles import save_admitted
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, read_manifest, temporary_folder
from quadbench.results.stored_runs import load_run_file
from quadbench.rollout import compile_for, equipment, roll_out
from quadbench.target.profile import KnownTarget

if TYPE_CHECKING:
    from quadbench.quad.admit import Admission

__all__ = [
    "DEFAULT_RUN",
    "RecordHooks",
    "RunOptions",
    "RunOutcome",
    "RunPlan",
    "admit",
    "build_all",
    "ensure_bundle",
    "ensure_bundles_for",
    "ensure_compiled",
    "require_devices",
    "resumable_bundle",
    "resume",
    "run",
    "run_bundle",
    "run_session",
    "run_stages",
    "work_of_bundle",
]


def run(
    recipe: Recipe,
    addresses: Sequence[Address],
    *,
    swept: Mapping[str, str] | None = None,
    options: RunOptions = DEFAULT_RUN,
    layout: Layout,
    observer: Observer,
) -> RunOutcome:
    """Build a recipe's bundles, push them to devices, measure them and write the report. Return a `RunOutcome`.

    A device that fails is left out and named in the outcome; the others continue. `swept` are the values that a sweep sets;
    `options` holds the retries for lost devices and the time budget. Each launch's record is stored at once.

    Raises:
        QuadbenchError: nothing could be built, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored.
    """
    began = time.monotonic()
    check_devices(recipe)
    ahead = build_ahead(recipe, addresses, options, layout=layout, observer=observer)
    work = RunPlan(name=recipe.name, terms=replace(recipe.terms, swept=dict(swept or {})))
    with run_session(work, addresses, options.since(began), layout=layout, observer=observer) as session:
        bundles = build_rest(ahead, recipe, session)
        deployed = deploy(bundles, session)
        measured = measure(deployed, session)
        failures = store(measured, deployed, session)
    return report(failures, session)


def build_ahead(
    recipe: Recipe, addresses: Sequence[Address], options: RunOptions, *, layout: Layout, observer: Observer
) -> dict[str, StoredBundle]:
    """Build a recipe's missing bundles before a run leases its devices. Return a dict from device profile to bundle.

    If no bundle is missing, return an empty dict at once; otherwise check the devices first.
    """
    profiles = list(dict.fromkeys(address.profile for address in addresses))
    if all(find_bundle(recipe.for_device(profile), layout) for profile in profiles):
        return {}
    purpose = f"check before a run of {recipe.name}"
    require_devices(addresses, purpose, options, cores=recipe.terms.runtime.cores, layout=layout)
    return ensure_bundles_for(recipe, profiles, layout=layout, observer=observer)


def build_rest(ahead: dict[str, StoredBundle], recipe: Recipe, session: RunSession) -> dict[str, StoredBundle]:
    """Build the bundles for phones whose profile was unknown until they were leased. Return a dict from profile to bundle."""
    profiles = session.leased.profiles
    if ahead.keys() >= set(profiles):
        return ahead
    return ensure_bundles_for(recipe, profiles, layout=session.layout, observer=session.observer)


def run_bundle(
    bundle: StoredBundle,
    terms: RunSettings,
    addresses: Sequence[Address],
    *,
    options: RunOptions = DEFAULT_RUN,
    layout: Layout,
    observer: Observer,
) -> RunOutcome:
    """Run a stored bundle on devices. Return a `RunOutcome`. Skip `per-graph` and its kin if the bundle lacks their U-Nets.

    Raises:
        QuadbenchError: every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored.
    """
    work = work_of_bundle(bundle, terms)
    with run_session(work, addresses, options, layout=layout, observer=observer) as session:
        failures = run_stages(dict.fromkeys(session.leased.profiles, bundle), session)
    return report(failures, session)


def resume(
    run_id: str, addresses: Sequence[Address] = (), *, options: RunOptions = DEFAULT_RUN, layout: Layout, observer: Observer
) -> RunOutcome:
    """Run the missing launches of an interrupted run on `addresses`. If `addresses` is empty, use all of the run's devices.

    Raises:
        UserError: there is no such run, the run has ended, or its file lacks what resuming needs.
        QuadbenchError: its bundle is gone or was changed, an address is now another device, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored.
    """
    begun = load_run_file(layout, run_id)
    bundles = bundles_of(begun, addresses, layout)
    work = RunPlan(name=bundles[begun.bundle].artifact.recipe_name, terms=begun.terms, run_id=begun.run_id, devices=begun.devices)
    with run_session(work, addresses or parse_addresses(begun.addresses), options, layout=layout, observer=observer) as session:
        own = {profile: bundles[begun.others.get(profile, begun.bundle)] for profile in session.leased.profiles}
        failures = run_stages(own, session)
    return report(failures, session)


def run_stages(bundles: Mapping[str, StoredBundle], session: RunSession) -> dict[str, QuadbenchError]:
    """Push each device its bundle, measure, and store results. Return a dict from each failed device's address to its error.

    Raises:
        QuadbenchError: nothing could be compiled, or every device failed.
        KeyboardInterrupt: Ctrl-C; what was measured is stored.
    """
    deployed = deploy(bundles, session)
    return store(measure(deployed, session), deployed, session)


def work_of_bundle(bundle: StoredBundle, terms: RunSettings) -> RunPlan:
    """Return a bundle's RunPlan. Baselines of `terms` with a U-Net per task are left out if the bundle lacks their graphs."""
    there = {graph.variant for graph in bundle.artifact.graphs}
    variants = ((name, Variant(name)) for name in terms.baselines)
    own = tuple(name for name, variant in variants if variant.graph_variant in there or not variant.has_unet_per_task)
    return RunPlan(name=bundle.artifact.recipe_name, terms=replace(terms, baselines=own))


def admit(
    candidate: Candidate, bundle: StoredBundle, addresses: Sequence[Address], *, layout: Layout, observer: Observer
) -> "tuple[Admission, tuple[Deployment, ...]]":
    """Check whether an adapter fits a bundle's LoRA encodings. If it fits, store the bundle with the adapter and push it to the
    devices. Return the `Admission` and a tuple of one `Deployment` per device, which is empty if the adapter does not fit.

    Raises:
        QuadbenchError: the adapter cannot be read or has no place in the base, or every device failed.
    """
    observer.stage_step("judge", str(candidate.source))
    with requires_extra("quad"):
        from quadbench.quad.admit import admit as admit_adapter

    def painting(number: int, total: int) -> None:
        observer.stage_step("paint", f"reference image {number} of {total}", (number - 1) / total)

    admission = admit_adapter(candidate, bundle, painting=painting)
    if admission.extended is None:
        return admission, ()
    save_admitted(layout, admission.extended)
    if not addresses:
        return admission, ()
    with connections.connect(addresses, layout=layout) as devices, leased(devices, layout, "admission of an adapter"):
        equipment.require_equipment(devices, layout)
        everywhere = [admission.extended] * len(devices)
        rollout = roll_out(everywhere, devices, layout=layout, observer=observer, runs_float=False)
    return admission, rollout.deployments


def ensure_bundle(recipe: Recipe, *, layout: Layout, observer: Observer) -> StoredBundle:
    """Return the stored bundle of a recipe; build the bundle if it does not exist yet.

    Raises:
        QuadbenchError: the recipe cannot be built, or the existing bundle is damaged.
    """
    bundle = find_bundle(recipe, layout)
    if bundle:
        observer.artifact_reused("bundle", bundle.artifact.digest)
        return bundle
    with requires_extra("quad"):
        from quadbench.quad.build import build
    bundle = build(recipe, layout, notify=partial(observer.stage_step, "build"))
    observer.bundle_built(bundle.artifact)
    return bundle


def ensure_bundles_for(recipe: Recipe, profiles: Sequence[str], *, layout: Layout, observer: Observer) -> dict[str, StoredBundle]:
    """Return a dict from device profile to bundle. Build missing bundles; build steps that several bundles share run only once.

    Raises:
        QuadbenchError: as `ensure_bundle`.
    """
    recipes = {profile: recipe.for_device(profile) for profile in profiles}
    unlike = {recipe_digest(own): own for own in recipes.values()}
    if len(unlike) > 1:
        build_all(list(unlike.values()), layout=layout, observer=observer)
    bundles = {digest: ensure_bundle(own, layout=layout, observer=observer) for digest, own in unlike.items()}
    return {profile: bundles[recipe_digest(own)] for profile, own in recipes.items()}


def build_all(recipes: Sequence[Recipe], *, layout: Layout, observer: Observer) -> None:
    """Build and store the recipes' bundles that are not stored yet. Build steps that several bundles share run only once.

    Raises:
        QuadbenchError: a recipe cannot be built; what was built before is kept.
    """
    unlike = {recipe_digest(recipe): recipe for recipe in recipes}
    missing = [recipe for recipe in unlike.values() if not find_bundle(recipe, layout)]
    if not missing:
        return
    with requires_extra("quad"):
        from quadbench.quad.build import build
        from quadbench.quad.prepare import BuildCache
    with temporary_folder(layout.scratch) as scratch:
        intermediates = BuildCache(scratch, layout.parts)
        for number, recipe in enumerate(missing, start=1):
            notify = partial(_tell_step, observer, f"{number} of {len(missing)}")
            build(recipe, layout, notify=notify, intermediates=intermediates)


def ensure_compiled(
    source: Recipe | Path, target: KnownTarget, *, layout: Layout, observer: Observer
) -> tuple[StoredBundle, StoredCompiled]:
    """Compile a bundle, given as its folder or as a recipe, for one compile target. Return the pair (bundle, compiled bundle).

    Raises:
        MissingDependencyError: the target cannot be compiled for here; nothing was built.
        ArtifactError: a file of the bundle has another content than its manifest says.
        BuildError, ArtifactError: as `compile_bundle`.
    """
    require(target.target, target.key)
    match source:
        case Path():
            bundle = read_manifest(source, Bundle)
        case Recipe():
            bundle = ensure_bundle(source, layout=layout, observer=observer)
    check_contents(bundle, file_refs(bundle.artifact))  # a later run uses the bundle's other files too
    return bundle, compile_for(bundle, target.target, target.key, target.htp_arch, layout=layout, observer=observer)


def _tell_step(observer: Observer, which: str, step: str) -> None:
    observer.stage_step("build", f"{which}: {step}")
