"""Readings: the kinds of a launch's values -> how a figure of a task is read off the values of every launch alike; pure."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from statistics import median

from quadbench.artifacts import Component, Kinds, SampleKind, TaskAssets, TaskKind, Variant
from quadbench.recipe.tasks import NO_TASK
from quadbench.report.launches import places

Reading = Callable[[Sequence[float]], Sequence[float]]  # a launch's values -> those of a figure


def at_places(places: Sequence[int]) -> Reading:
    """Read the values at some places."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


def of_task(metric: str) -> Callable[[Kinds, TaskAssets, Variant], Reading]:
    """Read a metric of the task."""
    return lambda kinds, task, _: at_places(places(kinds, metric, lambda kind: kind.task == task.name))


def switches(kinds: Kinds, task: TaskAssets, _: Variant) -> Reading:
    """Read the switches to the task from another."""

    def is_to_task(kind: SampleKind) -> bool:
        return bool(_came_from(kind)) and kind.labels.get("to", kind.task) == task.name

    return at_places(places(kinds, "switch_ns", is_to_task))


def _came_from(switch: SampleKind) -> str:
    """Return the task that ran before; nothing where a launch begins, since loading its first task switches from none."""
    before = switch.labels.get("from", "")
    return "" if before == NO_TASK else before


def first_unets(kinds: Kinds, task: TaskAssets, _: Variant) -> Reading:
    """Read the first runs that followed a switch from another task. Kinds stand in the order in which they were measured."""
    first_runs, came_from = [], ""
    for place in kinds.about_switches:
        kind = kinds.each[place]
        if kind.metric == "switch_ns":
            came_from = _came_from(kind)
        elif kind.metric == "first_unet_ns" and kind.task == task.name and came_from:
            first_runs.append(place)
    return at_places(first_runs)


def first_images(kinds: Kinds, task: TaskAssets, _: Variant) -> Reading:
    """Read each switch from another task together with the image that followed it, be it a warm-up or not."""
    pairs, switch = [], None
    for place in kinds.about_switches:
        kind = kinds.each[place]
        if kind.metric == "switch_ns":
            switch = place if _came_from(kind) else None
        elif kind.metric == "end_to_end_ns" and kind.task == task.name and switch is not None:
            pairs.append((switch, place))
            switch = None
    return lambda values: [values[switch] + values[image] for switch, image in pairs]


def highest(metric: str) -> Callable[[Kinds, TaskAssets, Variant], Reading]:
    """Read one value a launch: a task's blocks each have a peak, and the launch needs the highest."""

    def reading(kinds: Kinds, task: TaskAssets, variant: Variant) -> Reading:
        all_peaks = of_task(metric)(kinds, task, variant)
        return lambda values: [max(peaks)] if (peaks := all_peaks(values)) else []

    return reading


def session_load(kinds: Kinds, task: TaskAssets, variant: Variant) -> Reading:
    """Read the sum over the components that the task runs, each the median of its loads in the launch."""
    loads = [at_places(places(kinds, "session_load_ns", _is_component(part, task, variant))) for part in components_of(task)]

    def sum_of_medians(values: Sequence[float]) -> list[float]:
        times = [load(values) for load in loads]
        return [sum(map(median, times))] if all(times) else []

    return sum_of_medians


def adapter_load(kinds: Kinds, task: TaskAssets, _: Variant) -> Reading:
    """Read the loads of the task's adapter from storage."""

    def is_cold(kind: SampleKind) -> bool:
        return kind.labels.get("adapter") == task.adapter and kind.labels.get("state") == "cold"

    return at_places(places(kinds, "adapter_load_ns", is_cold))


def foundation_bytes(kinds: Kinds, task: TaskAssets, variant: Variant) -> Reading:
    """Read the sum over the files that all tasks have on the device and the task's U-Net; nothing without that."""
    parts = [places(kinds, "rom_bytes", _is_component(part, task, variant)) for part in components_of(task, on_disk=True)]
    firsts = [part[0] for part in parts if part] if parts[0] else []
    return _sum_at(firsts)


def lora_bytes(kinds: Kinds, task: TaskAssets, _: Variant) -> Reading:
    """Read the sum over the adapters that the task runs; nothing unless each was read."""
    files = places(kinds, "rom_bytes", lambda kind: kind.labels.get("kind") == "adapter")
    place_of = {kinds.each[place].labels["adapter"]: place for place in files}
    return _sum_at([place_of[name] for name in task.weights] if task.weights.keys() <= place_of.keys() else [])


def _sum_at(places: Sequence[int]) -> Reading:
    return lambda values: [sum(values[place] for place in places)] if places else []


def components_of(task: TaskAssets, *, on_disk: bool = False) -> tuple[Component, ...]:
    """Return the components that a task runs, the U-Net first; all of them lie on the device (`on_disk`), whatever the task."""
    without_input = task.kind is TaskKind.TEXT_TO_IMAGE and not on_disk
    return (
        Component.UNET,
        Component.TEXT_ENCODER,
        *(() if without_input else (Component.VAE_ENCODER,)),
        Component.VAE_DECODER,
    )


def of_component(metric: str, component: Component) -> Callable[[Kinds, TaskAssets, Variant], Reading]:
    """Read a metric of a graph that ran by itself, for the task that uses it."""
    return lambda kinds, task, variant: at_places(places(kinds, metric, _is_component(component, task, variant)))


def run_of(component: Component) -> Callable[[Kinds, TaskAssets, Variant], Reading]:
    """Read the runs of a graph that ran by itself."""
    return of_component("inference_ns", component)


def _is_component(component: Component, task: TaskAssets, variant: Variant) -> Callable[[SampleKind], bool]:
    unet = task.name if variant.has_unet_per_task else "base"
    if component is Component.UNET:
        return lambda kind: kind.component == component and kind.labels.get("unet", kind.task) == unet
    return lambda kind: kind.component == component
