"""Schedule: a recipe and how many inputs each task has -> what every launch runs, in order. Pure."""

from collections.abc import Iterator, Mapping
from itertools import cycle, groupby, islice
from typing import assert_never

from quadbench.artifacts import LaunchPlan, SequenceBlock, Variant
from quadbench.recipe import Measure, Recipe


def launches_of(recipe: Recipe, item_counts: Mapping[str, int], *, has_references: bool = True) -> tuple[LaunchPlan, ...]:
    """Return the launches of a recipe, the same for every device, in the order in which they run.

    `item_counts` maps a task to the number of its evaluation inputs, as the bundle has them. The float launch, which checks
    images against references, is left out where there are none.
    """
    parity = [LaunchPlan(variant=Variant.FLOAT, launch=0, sequence=_parity_sequence(recipe, item_counts))]
    return (*(parity if has_references else ()), *_launches(recipe, item_counts))


def measured_sequence(measure: Measure, item_counts: Mapping[str, int]) -> tuple[SequenceBlock, ...]:
    """Return every task at length, so often that each of its images is made; then single images in order, for the switches."""
    names = list(item_counts)
    blocks = [
        SequenceBlock(task=name, warmup=measure.warmup, iterations=max(measure.iterations, count))
        for name, count in item_counts.items()
    ]
    switches = measure.sequence or islice(cycle(names), measure.switches if len(names) > 1 else 0)
    return (*blocks, *(SequenceBlock(task=name, warmup=0, iterations=len(list(images))) for name, images in groupby(switches)))


def _launches(recipe: Recipe, item_counts: Mapping[str, int]) -> Iterator[LaunchPlan]:
    sequence = measured_sequence(recipe.measure, {task.name: item_counts[task.name] for task in recipe.tasks})
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
