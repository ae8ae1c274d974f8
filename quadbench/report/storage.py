"""File sizes on a device by number of tasks: one shared graph with LoRA adapters, compared with one graph per task."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from quadbench.artifacts import Component, DeviceFacts, RunRecord, RunResult, Sample, TaskAssets, Variant
from quadbench.errors import SpecError
from quadbench.report.launches import launches_of, only_ok
from quadbench.spec.yaml_document import Document, parse_document
from quadbench.zoo import TEN_TASKS

_GROWTH_SHOWN = {1, 2, 5, 10}
EXTRAPOLATE_TO = 10  # use cases: the paper's own example (arXiv 2603.29535, section 4) counts ten


@dataclass(frozen=True, kw_only=True)
class ComponentBytes:
    """The file size of a component in bytes, by variant; None for a variant without a file of the component."""

    component: Component
    shared: int | None
    per_graph: int | None


@dataclass(frozen=True, kw_only=True)
class UseCases:
    """Total file sizes by variant for the first `count` tasks. `task` names the last task; None if the sizes are extrapolated."""

    count: int
    task: str | None = None
    adapter: str | None = None
    adapter_bytes: int | None = None
    unet_bytes: int | None = None
    shared_bytes: float | None
    per_graph_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class Storage:
    """File sizes on a device for a run's first 1, 2, 3 and more tasks. `extrapolated` continues `measured` to 10 tasks: each adds
    the mean LoRA (shared graph) or mean U-Net (per-graph). `growth` has stored sizes of the recipe `ten-tasks`, or is None.
    """

    device: DeviceFacts
    target: str
    components: tuple[ComponentBytes, ...]
    measured: tuple[UseCases, ...]
    extrapolated: tuple[UseCases, ...]
    growth: "Growth | None" = None

    @property
    def has_both(self) -> bool:
        """Return whether the bytes of all tasks are known both for the shared graph and for one graph per task."""
        return all(None not in (step.shared_bytes, step.per_graph_bytes) for step in self.measured[-1:])


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The file sizes of the recipe `ten-tasks` on the built-in model, stored from an earlier run. `steps` has the total bytes for
    each number of tasks from 1 on. `trained` and `random` list sizes of LoRA files with trained and with random weights.
    """

    measured_on: str  # ISO date
    trained: tuple[int, ...]  # sizes of the trained LoRAs, rising
    random: tuple[int, ...]  # sizes of the random ones, rising
    steps: tuple[tuple[int, int, int], ...]  # number of tasks, bytes shared, bytes per-graph

    @property
    def shown(self) -> tuple[tuple[int, int, int], ...]:
        """Return rows of the report's table: (tasks, bytes shared, bytes per-graph), one each for 1, 2, 5 and 10 tasks."""
        return tuple(step for step in self.steps if step[0] in _GROWTH_SHOWN)


def stored_growth(target: str, tasks: int, recipe: str | None) -> Growth | None:
    """Return the stored file sizes of the recipe `ten-tasks`, for a run of fewer than ten tasks on the same foundation model
    and target; None for any other run. `tasks` is the run's number of tasks, and `recipe` is the run's recipe as text, or None.
    """
    stored = _ten_tasks()
    steps = stored["steps"]
    is_same = (foundation_in(recipe or ""), target) == (stored["foundation"], stored["target"])
    if not is_same or tasks >= len(steps):
        return None
    return Growth(
        measured_on=stored["measured_on"],
        trained=tuple(sorted(step["lora_bytes"] for step in steps if not step["is_random"])),
        random=tuple(sorted(step["lora_bytes"] for step in steps if step["is_random"])),
        steps=tuple((count, step["shared_bytes"], step["per_graph_bytes"]) for count, step in enumerate(steps, 1)),
    )


def foundation_in(recipe: str) -> object:
    """Return the foundation model that a recipe's text declares; None if the text cannot be parsed."""
    try:
        return parse_document(recipe, Document(path=Path("recipe"))).data.get("foundation")
    except SpecError:
        return None


@cache
def _ten_tasks() -> dict[str, Any]:
    """Return the parsed JSON file that `bench/ten_tasks.py` wrote: file sizes of the recipe `ten-tasks` for 1 to 10 tasks."""
    document: dict[str, Any] = json.loads(TEN_TASKS.read_text(encoding="utf-8"))
    return document


def storage_views(result: RunResult) -> tuple[Storage, ...]:
    """Return a `Storage` per bundle and target, for the first device with shared and per-graph sizes, or else with either."""
    views: dict[tuple[str, str], Storage] = {}
    for device in result.devices:
        if storage := storage_of(result, device):
            key = (result.bundle_on(device).digest, storage.target)
            known = views.setdefault(key, storage)
            if storage.has_both and not known.has_both:
                views[key] = storage
    return tuple(views.values())


def storage_of(result: RunResult, device: DeviceFacts) -> Storage | None:
    """Return a device's file sizes from the first OK launches of the shared and per-graph variants; None if no size is known."""
    shared = only_ok(launches_of(result, device, Variant.SHARED))[:1]
    per_graph = only_ok(launches_of(result, device, Variant.PER_GRAPH))[:1]
    record = next((record for record in (*shared, *per_graph) if _rom([record])), None)
    if record is None:
        return None
    base, own = _rom(shared), _rom(per_graph)
    measured = _measured(result.bundle_on(record.device).tasks, base, own)
    return Storage(
        device=record.device,
        target=record.target,
        components=tuple(
            ComponentBytes(component=component, shared=_bytes(base, component), per_graph=_bytes(own, component))
            for component in Component
        ),
        measured=measured,
        extrapolated=_extrapolated(measured),
        growth=stored_growth(record.target, len(measured), result.recipe),
    )


def _rom(records: Sequence[RunRecord]) -> tuple[Sample, ...]:
    return tuple(sample for record in records for sample in record.samples if sample.metric == "rom_bytes")


def _measured(tasks: Sequence[TaskAssets], shared: tuple[Sample, ...], per_graph: tuple[Sample, ...]) -> tuple[UseCases, ...]:
    shared_total: float | None = _base(shared)
    per_graph_total: float | None = _base(per_graph, without_unet=True)
    seen: set[str] = set()
    steps = []
    for count, task in enumerate(tasks, start=1):
        unet_bytes = _bytes(per_graph, Component.UNET, task.name)
        shared_total = _plus(shared_total, _adapter_bytes(shared, task.weights.keys() - seen))
        per_graph_total = _plus(per_graph_total, unet_bytes)
        seen.update(task.weights)
        steps.append(
            UseCases(
                count=count,
                task=task.name,
                adapter=task.adapter,
                adapter_bytes=_adapter_bytes(shared, task.weights),
                unet_bytes=unet_bytes,
                shared_bytes=shared_total,
                per_graph_bytes=per_graph_total,
            )
        )
    return tuple(steps)


def _extrapolated(measured: tuple[UseCases, ...]) -> tuple[UseCases, ...]:
    if not measured:
        return ()
    last = measured[-1]
    adapters = [step.adapter_bytes for step in measured if step.adapter and step.adapter_bytes]
    unets = [step.unet_bytes for step in measured if step.unet_bytes]
    return tuple(
        UseCases(
            count=last.count + more,
            shared_bytes=last.shared_bytes + more * mean(adapters) if last.shared_bytes and adapters else None,
            per_graph_bytes=last.per_graph_bytes + more * mean(unets) if last.per_graph_bytes and unets else None,
        )
        for more in range(1, EXTRAPOLATE_TO - last.count + 1)
    )


def _base(rom: tuple[Sample, ...], *, without_unet: bool = False) -> int | None:
    parts = [_bytes(rom, component) or 0 for component in Component if not (without_unet and component is Component.UNET)]
    return sum(parts) if rom else None


def _bytes(rom: tuple[Sample, ...], component: Component, unet: str = "base") -> int | None:
    for sample in rom:
        is_unet = component is not Component.UNET or sample.labels.get("unet", sample.task or "base") == unet
        if sample.component == component and is_unet and sample.labels.get("kind") == "base":
            return int(sample.value)
    return None


def _adapter_bytes(rom: tuple[Sample, ...], adapters: Iterable[str]) -> int | None:
    """Return the total file size of the named LoRA adapters in bytes; None if the size of any is unknown."""
    sizes = {sample.labels["adapter"]: int(sample.value) for sample in rom if sample.labels.get("kind") == "adapter"}
    wanted = set(adapters)
    return sum(sizes[name] for name in wanted) if rom and wanted <= sizes.keys() else None


def _plus(total: float | None, more: int | None) -> float | None:
    return None if total is None or more is None else total + more
