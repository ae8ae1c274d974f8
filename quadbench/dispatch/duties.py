"""Execute each kind of farm job on this host (build, compile, measure or compare), and send its output to the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from quadbench import pipeline
from quadbench.artifacts import Bundle, CompiledBundle, StoredCompiled
from quadbench.artifacts.kit import Kit
from quadbench.devices.addresses import Address, parse_address, with_target
from quadbench.dispatch.orders import (
    Answer,
    BuildOrder,
    CompareAnswer,
    CompareOrder,
    CompileAnswer,
    CompileOrder,
    MeasureAnswer,
    MeasureOrder,
    SideOrder,
    order_of,
)
from quadbench.errors import BuildError, DeviceError
from quadbench.farm.job import Job
from quadbench.farm.store.artifacts import fetch, send
from quadbench.farm.store.launches import send_launch
from quadbench.farm.store.objects import Store
from quadbench.observer import Observer
from quadbench.quad.cache import digests_of
from quadbench.recipe import Recipe
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run_file, part_for
from quadbench.rollout import compile_for
from quadbench.rollout.equipment import Overrides
from quadbench.spec.spec_model import load_text
from quadbench.study.comparison_side import CompareOptions, SideSpec
from quadbench.study.run_comparison import compare


@dataclass(frozen=True, kw_only=True)
class Host:
    """The environment in which a farm job runs: its host's results folder, the farm's artifact store, and a progress observer.

    `guard` runs in the transaction of each stored record and raises if the attempt is over.
    """

    layout: Layout
    store: Store
    observer: Observer
    guard: Callable[[sa.Connection], object]


def do(job: Job, compiled: Sequence[CompileAnswer], address: str, host: Host) -> Answer | None:
    """Execute a farm job, given the CompileAnswers of earlier compile jobs. Return the job's Answer, or None for a build job.

    Raises:
        QuadbenchError: the job fails, for good or for now.
        RunInterrupted: it was asked to stop; what was measured is stored.
    """
    match order_of(job):
        case BuildOrder() as order:
            _build(order, host)
            return None
        case CompileOrder() as order:
            return _compile(order, host)
        case MeasureOrder() as order:
            return _measure(order, job.run_id, compiled, parse_address(address), host)
        case CompareOrder() as order:
            return _compare(order, compiled, parse_address(address), host)


def _build(order: BuildOrder, host: Host) -> None:
    recipe = load_text(order.recipe, f"recipe of bundle {order.bundle[:12]}", Recipe)
    digest = digests_of(recipe).bundle
    if digest != order.bundle:
        raise BuildError(
            f"recipe '{recipe.name}' would give bundle {digest[:12]} here, not {order.bundle[:12]}",
            hint="its files, the packages or quadbench itself are others here than where it was submitted",
        )
    send(pipeline.ensure_bundle(recipe, layout=host.layout, observer=host.observer), host.store)


def _compile(order: CompileOrder, host: Host) -> CompileAnswer:
    bundle = fetch(Bundle, order.bundle, host.layout, host.store)
    product = compile_for(bundle, order.target, order.key, order.htp_arch, layout=host.layout, observer=host.observer)
    send(product, host.store)
    return CompileAnswer(bundle=order.bundle, key=order.key, compiled=product.artifact.digest)


def _measure(order: MeasureOrder, run_id: str, compiled: Sequence[CompileAnswer], address: Address, host: Host) -> MeasureAnswer:
    work = pipeline.RunPlan(
        name=order.name,
        terms=order.terms,
        run_id=run_id,
        overrides=Overrides(compiled=_fetched(compiled, host)),
        keep_files=partial(send_launch, layout=host.layout, store=host.store),
        guard=host.guard,
        is_part=True,
    )
    where = with_target(address, order.target)
    with pipeline.run_session(work, [where], order.conduct, layout=host.layout, observer=host.observer) as session:
        own = {profile: fetch(Bundle, order.bundles[profile], host.layout, host.store) for profile in session.leased.profiles}
        failures = pipeline.run_stages(own, session)
    for error in failures.values():
        raise error
    return MeasureAnswer(part=part_for(load_run_file(host.layout, run_id), where.text))


def _compare(order: CompareOrder, compiled: Sequence[CompileAnswer], address: Address, host: Host) -> CompareAnswer:
    options = CompareOptions(
        looks=order.looks,
        goals=order.goals,
        tasks=order.tasks,
        run_options=order.conduct,
        compiled=_fetched(compiled, host),
        keep_files=partial(send_launch, layout=host.layout, store=host.store),
        guard=host.guard,
        is_part=True,
    )
    a, b = (_side(side, host) for side in (order.a, order.b))
    versus = compare(a, b, [with_target(address, order.target)], options, layout=host.layout, observer=host.observer)
    for device in versus.devices:
        if device.broken:
            raise DeviceError(f"device '{address}': {device.broken}")
    runs = load_run_file(host.layout, versus.a.run_id), load_run_file(host.layout, versus.b.run_id)
    return CompareAnswer(versus=versus, runs=runs)


def _side(side: SideOrder, host: Host) -> SideSpec:
    bundle = fetch(Bundle, side.bundle, host.layout, host.store)
    if side.kit:
        fetch(Kit, side.kit, host.layout, host.store)
    return SideSpec(source=side.name, changes={}, bundle=bundle, variant=side.variant, kit=side.kit, terms=side.terms)


def _fetched(compiled: Sequence[CompileAnswer], host: Host) -> dict[tuple[str, str], StoredCompiled]:
    return {(one.bundle, one.key): fetch(CompiledBundle, one.compiled, host.layout, host.store) for one in compiled}
