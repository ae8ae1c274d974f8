"""Execute each kind of farm job on this host (build, compile, measure or compare), and send its output to the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from quadbench import pipeline
from quadbench.artifacts import Bundle, CompiledBundle, StoredCompiled
from quadbench.artifacts.kit import Kit
from quadbench.devices.addresses import Address, parse_address, with_target
from quadbench.dispatch import orders
from quadbench.errors import BuildError, DeviceError
from quadbench.farm.job import Job
from quadbench.farm.store.artifacts import fetch, send
from quadbench.farm.store.launches import send_launch
from quadbench.farm.store.objects import Store
from quadbench.observer import Observer
from quadbench.quad.cache import digests_of
from quadbench.recipe import Recipe
from quadbench.results.layout import Layout
from quadbench.results.records import Guard
from quadbench.results.stored_runs import load_run_file, part_for
from quadbench.rollout import compile_for
from quadbench.rollout.equipment import Overrides
from quadbench.spec.spec_model import load_text
from quadbench.study.run_comparison import CompareOptions, SideSpec, compare

Compiled = Mapping[tuple[str, str], StoredCompiled]  # by bundle digest and target key


@dataclass(frozen=True, kw_only=True)
class Host:
    """The environment in which a farm job runs: its host's results folder, the farm's artifact store, and a progress observer.

    `guard` runs in the transaction of each stored record and raises if the attempt is over.
    """

    layout: Layout
    store: Store
    observer: Observer
    guard: Guard


def do(job: Job, compiled: Sequence[orders.CompileAnswer], address: str, host: Host) -> orders.Answer | None:
    """Execute a farm job, given the answers of earlier compile jobs. Return the job's answer, or None for a build job.

    Raises:
        QuadbenchError: the job fails, for good or for now.
        RunInterrupted: it was asked to stop; what was measured is stored.
    """
    graphs = {(one.bundle, one.key): fetch(CompiledBundle, one.compiled, host.layout, host.store) for one in compiled}
    match orders.order_of(job):
        case orders.BuildOrder() as order:
            _build(order, host)
            return None
        case orders.CompileOrder() as order:
            return _compile(order, host)
        case orders.MeasureOrder() as order:
            return _measure(order, job.run_id, graphs, parse_address(address), host)
        case orders.CompareOrder() as order:
            return _compare(order, graphs, parse_address(address), host)


def _build(order: orders.BuildOrder, host: Host) -> None:
    recipe = load_text(order.recipe, f"recipe of bundle {order.bundle[:12]}", Recipe)
    digest = digests_of(recipe).bundle
    if digest != order.bundle:
        hint = "its files, the packages or quadbench itself are others here than where it was submitted"
        raise BuildError(f"recipe '{recipe.name}' would give bundle {digest[:12]} here, not {order.bundle[:12]}", hint=hint)
    send(pipeline.ensure_bundle(recipe, layout=host.layout, observer=host.observer), host.store)


def _compile(order: orders.CompileOrder, host: Host) -> orders.CompileAnswer:
    bundle = fetch(Bundle, order.bundle, host.layout, host.store)
    product = compile_for(bundle, order.target, order.key, order.htp_arch, layout=host.layout, observer=host.observer)
    send(product, host.store)
    return orders.CompileAnswer(bundle=order.bundle, key=order.key, compiled=product.artifact.digest)


def _measure(order: orders.MeasureOrder, run_id: str, graphs: Compiled, address: Address, host: Host) -> orders.MeasureAnswer:
    work = pipeline.RunPlan(
        name=order.name,
        terms=order.terms,
        run_id=run_id,
        overrides=Overrides(compiled=graphs),
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
    return orders.MeasureAnswer(part=part_for(load_run_file(host.layout, run_id), where.text))


def _compare(order: orders.CompareOrder, graphs: Compiled, address: Address, host: Host) -> orders.CompareAnswer:
    options = CompareOptions(
        looks=order.looks,
        goals=order.goals,
        tasks=order.tasks,
        run_options=order.conduct,
        compiled=graphs,
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
    return orders.CompareAnswer(versus=versus, runs=runs)


def _side(side: orders.SideOrder, host: Host) -> SideSpec:
    bundle = fetch(Bundle, side.bundle, host.layout, host.store)
    if side.kit:
        fetch(Kit, side.kit, host.layout, host.store)
    return SideSpec(source=side.name, changes={}, bundle=bundle, variant=side.variant, kit=side.kit, terms=side.terms)
