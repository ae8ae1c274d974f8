"""Schedule: the terms of a run and how many inputs each task has -> what every launch runs, in order. Pure."""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, cycle, groupby, islice
from typing import TypeVar, assert_never

from quadbench.artifacts import Bundle, LaunchPlan, SequenceBlock, Variant
from quadbench.artifacts.run_record import has_references, item_counts, with_own_graph
from quadbench.recipe import Measure, Terms

_Side = TypeVar("_Side")


def launches_of_bundle(terms: Terms, bundle: Bundle, *, seed: str) -> tuple[LaunchPlan, ...]:
    """Return the launches of a run of a bundle, as `launches_of`."""
    own = with_own_graph(bundle)
    return launches_of(terms, item_counts(bundle), seed=seed, has_references=has_references(bundle), own=own)


def launches_of(
    terms: Terms, counts: Mapping[str, int], *, seed: str, has_references: bool = True, own: Collection[str] | None = None
) -> tuple[LaunchPlan, ...]:
    """Return the launches of a run, the same for every device, in the order in which they run, which `seed` draws.

    `counts` maps a task to the number of its evaluation inputs, in the bundle's order. The float launch, which checks images
    against references, is left out where there are none. Variants with a U-Net per task run the tasks that have one of their
    `own` (None: all have); where none has, such variants are left out.
    """
    parity = [LaunchPlan(variant=Variant.FLOAT, launch=0, sequence=_parity_sequence(counts))]
    of_own = {name: count for name, count in counts.items() if own is None or name in own}
    return (*(parity if has_references else ()), *_launches(terms, counts, of_own, seed))


def measured_sequence(measure: Measure, counts: Mapping[str, int]) -> tuple[SequenceBlock, ...]:
    """Return every task at length, so often that each of its images is made; then single images in order, for the switches."""
    blocks = [
        SequenceBlock(task=name, warmup=measure.warmup, iterations=max(measure.iterations, count))
        for name, count in counts.items()
    ]
    named = [name for name in measure.sequence if name in counts]
    switches = named if measure.sequence else islice(cycle(counts), measure.switches if len(blocks) > 1 else 0)
    return (*blocks, *(SequenceBlock(task=name, warmup=0, iterations=len(list(images))) for name, images in groupby(switches)))


def drawn_blocks(sides: Sequence[_Side], seed: str) -> Iterator[tuple[_Side, ...]]:
    """Yield without end the order of the launches of each block: every side twice, mirrored, as A B B A, so that drift cancels.

    In a row of as many blocks as there are sides, each side comes first once, second once, and so on, so that what recurs with
    every block hits all sides alike. In which order is drawn, but for the very first block, which is A B B A. The same seed draws
    the same.
    """
    drawn = random.Random(seed)
    first, *others = [(*sides[start:], *sides[:start]) for start in range(len(sides))]
    group = [first, *drawn.sample(others, len(others))]
    while True:
        yield from ((*order, *reversed(order)) for order in group)
        drawn.shuffle(group)


def _launches(terms: Terms, counts: Mapping[str, int], of_own: Mapping[str, int], seed: str) -> Iterator[LaunchPlan]:
    of_all, of_own_alone = (measured_sequence(terms.measure, each) for each in (counts, of_own))
    launch_of = dict.fromkeys(Variant, 0)
    for variant in _order(terms, seed):
        if sequence := of_own_alone if variant.has_unet_per_task else of_all:
            yield LaunchPlan(variant=variant, launch=launch_of[variant], sequence=sequence)
            launch_of[variant] += 1


def _order(terms: Terms, seed: str) -> Iterator[Variant]:
    variants, measure = [Variant.SHARED, *(Variant(baseline) for baseline in terms.baselines)], terms.measure
    match measure.order:
        case "abba":
            launches = chain.from_iterable(drawn_blocks(variants, seed))
            yield from islice(launches, len(variants) * measure.launches)
        case "sequential":
            for variant in variants:
                yield from [variant] * measure.launches
        case _:
            assert_never(measure.order)


def _parity_sequence(counts: Mapping[str, int]) -> tuple[SequenceBlock, ...]:
    """Every image once, in the first launch: a device that computes wrongly is found out before it is measured."""
    return tuple(SequenceBlock(task=name, warmup=0, iterations=count) for name, count in counts.items())
