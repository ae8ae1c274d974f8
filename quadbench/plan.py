"""Plan: Recipe + devices + how many inputs each task has -> what is compiled, and what every launch runs, in order. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import assert_never

from quadbench.artifacts import Bundle, Variant
from quadbench.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class PlannedDevice:
    """A device by its address on the command line, and the key of the target that it runs."""

    address: str
    target: str


@dataclass(frozen=True, kw_only=True)
class SequenceBlock:
    """Iterations of one task without a switch between them."""

    task: str
    warmup: int
    iterations: int


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """One fresh process. `launch` counts from 0 within the variant."""

    variant: Variant
    launch: int
    sequence: tuple[SequenceBlock, ...]


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """Everything that one device does, in order."""

    address: str
    target: str
    launches: tuple[LaunchPlan, ...]


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One `quadbench run`. Each target is compiled once, for all devices that run it."""

    targets: tuple[str, ...]
    devices: tuple[DevicePlan, ...]


def make_plan(
    recipe: Recipe, devices: Sequence[PlannedDevice], item_counts: Mapping[str, int], *, has_references: bool = True
) -> RunPlan:
    """`item_counts`: task -> number of its evaluation inputs, as the bundle has them. Without references no float launch."""
    parity = [LaunchPlan(variant=Variant.FLOAT, launch=0, sequence=_parity_sequence(recipe, item_counts))]
    launches = (*(parity if has_references else ()), *_launches(recipe, item_counts))
    return RunPlan(
        targets=tuple(dict.fromkeys(device.target for device in devices)),
        devices=tuple(DevicePlan(address=device.address, target=device.target, launches=launches) for device in devices),
    )


def has_references(bundle: Bundle) -> bool:
    """Whether there is something to hold the float graph's images against: with random weights there is not."""
    return any(item.reference for task in bundle.tasks for item in task.items)


def _launches(recipe: Recipe, item_counts: Mapping[str, int]) -> Iterator[LaunchPlan]:
    sequence = _measured_sequence(recipe, item_counts)
    launch_of = dict.fromkeys(Variant, 0)
    for variant in _order(recipe):
        yield LaunchPlan(variant=variant, launch=launch_of[variant], sequence=sequence)
        launch_of[variant] += 1


def _order(recipe: Recipe) -> Iterator[Variant]:
    variants = [Variant.SHARED, *(Variant(baseline) for baseline in recipe.baselines)]
    match recipe.measure.order:
        case "abba":
            for block in range(recipe.measure.launches):
                yield from variants if block % 2 == 0 else reversed(variants)
        case "sequential":
            for variant in variants:
                yield from [variant] * recipe.measure.launches
        case _:
            assert_never(recipe.measure.order)


def _parity_sequence(recipe: Recipe, item_counts: Mapping[str, int]) -> tuple[SequenceBlock, ...]:
    """Every image once, in the first launch: a device that computes wrongly is found out before it is measured."""
    return tuple(SequenceBlock(task=task.name, warmup=0, iterations=item_counts[task.name]) for task in recipe.tasks)


def _measured_sequence(recipe: Recipe, item_counts: Mapping[str, int]) -> tuple[SequenceBlock, ...]:
    """Every task at length, so often that each of its images is made; then one image each in turn, for the switches."""
    measure, names = recipe.measure, [task.name for task in recipe.tasks]
    blocks = [
        SequenceBlock(task=name, warmup=measure.warmup, iterations=max(measure.iterations, item_counts[name])) for name in names
    ]
    switches = measure.switches if len(names) > 1 else 0
    return (*blocks, *(SequenceBlock(task=name, warmup=0, iterations=1) for name in islice(cycle(names), switches)))
