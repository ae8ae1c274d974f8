"""Split a farm run into build, compile and measurement jobs. Each job lists the jobs that must finish before it."""

from collections.abc import Sequence
from dataclasses import dataclass

from quadbench.dispatch.orders import BuildOrder, CompareOrder, CompileOrder, MeasureOrder, Order, as_json
from quadbench.farm.job import JobKind, NewJob
from quadbench.farm.need import capability_need

BUILD = "build"


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A measurement or comparison job to plan: its payload, the required device, and the payloads of compile jobs before it."""

    needs: str
    order: MeasureOrder | CompareOrder
    compiled: tuple[CompileOrder, ...]


def compile_capability(key: str) -> str:
    """Return the name that a host announces if it can compile for target `key`: `compile qnn-v79-69` for `qnn-v79-69`."""
    return f"compile {key}"


def planned(builds: Sequence[BuildOrder], demands: Sequence[Demand], *, priority: int = 0) -> list[NewJob]:
    """Return a farm run's jobs: first build jobs, then compile jobs, then one job to measure or compare for each Demand."""
    jobs: list[NewJob] = []

    def add(needs: str, order: Order, after: Sequence[int], affinity: str = "") -> int:
        job = NewJob(
            kind=JobKind(order.kind),
            needs=needs,
            payload=as_json(order),
            after=tuple(after),
            priority=priority,
            affinity=affinity,
        )
        jobs.append(job)
        return len(jobs) - 1

    built = {order.bundle: add(capability_need(BUILD), order, ()) for order in builds}
    compiled: dict[tuple[str, str], int] = {}
    for demand in demands:
        for order in demand.compiled:
            if (order.bundle, order.key) not in compiled:
                after = [built[order.bundle]] if order.bundle in built else []
                needs = capability_need(compile_capability(order.key))
                compiled[order.bundle, order.key] = add(needs, order, after)
    for demand in demands:
        after = [compiled[order.bundle, order.key] for order in demand.compiled]
        affinity = min(f"{order.bundle} {order.key}" for order in demand.compiled)
        add(demand.needs, demand.order, after, affinity)
    return jobs
