"""Decide which launch a device runs next, from the run's planned launches, the stored records and the time left."""

import random
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, groupby, islice
from typing import TypeVar, assert_never

from quadbench.artifacts import Bundle, LaunchPlan, RunRecord, Status, Variant
from quadbench.artifacts.run_record import SequenceBlock, has_references, item_counts, own_graph_tasks
from quadbench.harness.installation import Installation
from quadbench.measure.launch import LaunchEnd
from quadbench.measure.launch_record import LaunchSettings
from quadbench.recipe import Measure, RunSettings
from quadbench.results.stored_runs import MAX_LAUNCHES
from quadbench.statistics import LAUNCHES_PER_BLOCK, Looks

_Side = TypeVar("_Side")

Block = tuple[LaunchPlan, ...]
PairedBlock = tuple[RunRecord, RunRecord, RunRecord, RunRecord]  # first A, first B, second B, second A
Judge = Callable[[Sequence[PairedBlock], Looks], tuple[Looks, bool]]


def launches_of_bundle(terms: RunSettings, bundle: Bundle, *, seed: str) -> tuple[LaunchPlan, ...]:
    """Return a run's launch plans in order. The tasks and each task's number of evaluation inputs are read from `bundle`."""
    own = own_graph_tasks(bundle)
    return launches_of(terms, item_counts(bundle), seed=seed, has_references=has_references(bundle), own=own)


def launches_of(
    terms: RunSettings, counts: Mapping[str, int], *, seed: str, has_references: bool = True, own: Collection[str] | None = None
) -> tuple[LaunchPlan, ...]:
    """Return a run's launch plans: a float launch if there are references, then variants in the order that `terms` sets.

    `counts` maps each task to the number of its evaluation inputs, in the bundle's order. The float launch checks images against
    references, so it is left out if there are none. Variants with a U-Net per task run only the tasks in `own`, which have graphs
    of their own (None: all tasks). If `own` is empty, these variants are left out. `seed` draws the order in A B B A blocks.
    """
    # The first launch makes every image once, so that a device with wrong results is found before it is measured.
    every = tuple(SequenceBlock(task=name, warmup=0, iterations=count) for name, count in counts.items())
    launches = [LaunchPlan(variant=Variant.FLOAT, launch=0, sequence=every)] if has_references else []
    of_own = {name: count for name, count in counts.items() if own is None or name in own}
    of_all, of_own_alone = (measurement_sequence(terms.measure, each) for each in (counts, of_own))
    number_of = dict.fromkeys(Variant, 0)
    for variant in _order(terms, seed):
        if sequence := of_own_alone if variant.has_unet_per_task else of_all:
            launches.append(LaunchPlan(variant=variant, launch=number_of[variant], sequence=sequence))
            number_of[variant] += 1
    return tuple(launches)


def measurement_sequence(measure: Measure, counts: Mapping[str, int]) -> tuple[SequenceBlock, ...]:
    """Return a SequenceBlock per task with all the task's images, then short SequenceBlocks that measure task switches."""
    blocks = [
        SequenceBlock(task=name, warmup=measure.warmup, iterations=max(measure.iterations, count))
        for name, count in counts.items()
    ]
    named = [name for name in measure.sequence if name in counts]
    switches = named if measure.sequence else islice(cycle(counts), measure.switches if len(blocks) > 1 else 0)
    return (*blocks, *(SequenceBlock(task=name, warmup=0, iterations=len(list(images))) for name, images in groupby(switches)))


def random_blocks(sides: Sequence[_Side], seed: str) -> Iterator[tuple[_Side, ...]]:
    """Yield tuples without end: all `sides` (builds or variants) in an order that `seed` draws, then reversed, such as A B B A.

    Each block has each side twice, so that linear drift cancels. Within as many blocks as there are sides, each side has each
    position once, so effects that recur in every block hit all sides alike. The very first block is always A B B A.
    """
    drawn = random.Random(seed)
    first, *others = [(*sides[start:], *sides[:start]) for start in range(len(sides))]
    group = [first, *drawn.sample(others, len(others))]
    while True:
        yield from ((*order, *reversed(order)) for order in group)
        drawn.shuffle(group)


def _order(terms: RunSettings, seed: str) -> Iterator[Variant]:
    variants, measure = [Variant.SHARED, *(Variant(baseline) for baseline in terms.baselines)], terms.measure
    match measure.order:
        case "abba":
            launches = chain.from_iterable(random_blocks(variants, seed))
            yield from islice(launches, len(variants) * measure.launches)
        case "sequential":
            for variant in variants:
                yield from [variant] * measure.launches
        case _:
            assert_never(measure.order)


def missing_blocks(launches: Sequence[LaunchPlan], stored: Sequence[RunRecord]) -> list[Block]:
    """Return the A B B A blocks that are not stored with all launches OK. Blocks partly run or failed get new launch numbers."""
    ends = {(record.variant, record.launch): record.status for record in stored}
    # In a block every variant runs equally often; the float launch is a block of its own.
    keyed = groupby(launches, key=lambda launch: (launch.variant is Variant.FLOAT, launch.launch // LAUNCHES_PER_BLOCK))
    return [rest for _, block in keyed if (rest := _missing(tuple(block), ends))]


def repeat_block(block: Block) -> Block:
    """Return a copy of an A B B A block in which every launch has a new number, so that the block can be repeated."""
    return tuple(replace(launch, launch=launch.launch + MAX_LAUNCHES) for launch in block)


def _missing(block: Block, ends: dict[tuple[Variant, int], Status]) -> Block | None:
    while any((launch.variant, launch.launch) in ends for launch in block):
        if all(ends.get((launch.variant, launch.launch)) is Status.OK for launch in block):
            return None
        block = repeat_block(block)
    return block


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The time budget of a run. It is used up when `clock`, a function that returns seconds, reaches `ends_at`."""

    ends_at: float
    clock: Callable[[], float] = time.monotonic

    @property
    def left_s(self) -> float:
        return self.ends_at - self.clock()

    def allows(self, block: Block, ended: Sequence[RunRecord]) -> bool:
        """Return True if a block of launches is predicted to fit the time left. `ended` has the records of earlier launches."""
        return expected_duration_s(block, ended) <= self.left_s


def expected_duration_s(block: Block, ended: Sequence[RunRecord]) -> float:
    """Predict a block's seconds: per launch, the longest earlier launch of its variant, else image count times seconds per image.

    A variant without a finished launch takes at least its number of images times the slowest time per image; the images are those
    of finished launches, else of failed ones. Interrupted launches are ignored. Without any launch the result is 0.
    """
    longest, fine = dict[Variant, float](), [record for record in ended if record.status.is_fine]
    failed = [record for record in ended if record.status is Status.FAILED]
    for record in (*fine, *failed):
        longest[record.variant] = max(_seconds(record), longest.get(record.variant, 0.0))
    image_s = max(map(_image_s, fine or failed), default=0.0)
    whole = {record.variant for record in fine}
    return sum(
        max(longest.get(launch.variant, 0.0), 0.0 if launch.variant in whole else image_s * launch.images) for launch in block
    )


def _image_s(record: RunRecord) -> float:
    images = sum(sample.metric == "end_to_end_ns" for sample in record.samples)
    return _seconds(record) / images if images else 0.0


def _seconds(record: RunRecord) -> float:
    return (record.ended_at - record.started_at).total_seconds()


@dataclass(frozen=True, kw_only=True)
class ScheduledLaunch:
    """The next launch, `number` of `total`. On a hot or slow device it ends as DISCARDED if `may_discard`, else with a caveat."""

    installation: Installation
    launch: LaunchPlan
    settings: LaunchSettings
    number: int
    total: int
    may_discard: bool = False


LaunchSchedule = Generator[
    ScheduledLaunch, LaunchEnd, Sequence[LaunchPlan]
]  # its return value: launches for which no time was left


def schedule_launches(
    installation: Installation,
    launches: Sequence[LaunchPlan],
    settings: LaunchSettings,
    *,
    repeats: int,
    stored: Sequence[RunRecord] = (),
    budget: Budget | None = None,
) -> LaunchSchedule:
    """Yield a ScheduledLaunch for each launch; the caller sends back its LaunchEnd. Return the launches that the budget left out.

    A block with a DISCARDED launch is repeated at the end; if the device was lost, at once. For a resumed run, `stored` has the
    device's records, and blocks that are complete and OK are skipped. The first block that would exceed the budget ends the run.
    """
    blocks, ended = deque(missing_blocks(launches, stored)), list(stored)
    total, number = len(launches), len(launches) - sum(map(len, blocks))
    repeats -= sum(record.status is Status.DISCARDED for record in stored)
    while blocks and (budget is None or budget.allows(blocks[0], ended)):
        block = blocks.popleft()
        for launch in block:
            number += 1
            end = yield ScheduledLaunch(
                installation=installation,
                launch=launch,
                settings=settings,
                number=number,
                total=total,
                may_discard=repeats > 0 and launch.variant is not Variant.FLOAT,
            )
            ended.append(end.record)
            if end.lost:
                blocks.appendleft(repeat_block(block))
            elif end.record.status is Status.DISCARDED:
                blocks.append(repeat_block(block))
                repeats -= 1
            else:
                continue
            total = number + sum(map(len, blocks))
            break
    return [launch for block in blocks for launch in block]


@dataclass(frozen=True, kw_only=True)
class SideLaunch:
    """One of the two builds that a comparison launches alternately: its installed bundle, launch plan and launch settings."""

    installation: Installation
    launch: LaunchPlan
    settings: LaunchSettings


@dataclass(kw_only=True)
class InterleavedSchedule:
    """A schedule that launches builds A and B in blocks A B B A or B A A B. After a complete block, `judge` may end the launches.

    `seed` draws the order of the blocks. After each complete block, the judge gets all blocks so far. It returns the remaining
    `looks` (interim analyses) and whether to stop. A block with a launch that is not OK stops there and counts for neither build.
    After more than `repeats` such blocks the comparison ends, and `broken` has the reason.
    """

    a: SideLaunch
    b: SideLaunch
    looks: Looks
    judge: Judge
    repeats: int
    seed: str
    blocks: list[PairedBlock] = field(default_factory=list)
    broken: str | None = None
    is_over: bool = False
    _begun: int = 0

    def schedule(self) -> LaunchSchedule:
        yield from self._schedule()
        self.is_over = True
        return ()

    def _schedule(self) -> Generator[ScheduledLaunch, LaunchEnd, None]:
        repeats, has_seen_enough = self.repeats, False
        orders = random_blocks("AB", self.seed)
        order = next(orders)
        while not has_seen_enough and len(self.blocks) < self.looks.at[-1]:
            *records, last = yield from self._block(order, may_discard=repeats > 0)
            if last.status is Status.OK:
                placed = list(zip(order, (*records, last), strict=True))
                (first, fourth), (second, third) = ([one for side, one in placed if side == of] for of in "AB")
                self.blocks.append((first, second, third, fourth))
                order = next(orders)
                self.looks, has_seen_enough = self.judge(self.blocks, self.looks)
            elif repeats == 0:
                self.broken = last.reason
                return
            else:
                repeats -= 1

    def _block(self, order: Sequence[str], *, may_discard: bool) -> Generator[ScheduledLaunch, LaunchEnd, list[RunRecord]]:
        """Yield a block's launches of builds A and B in `order`, until one is not OK. Return the records of these launches."""
        records: list[RunRecord] = []
        first = LAUNCHES_PER_BLOCK * self._begun
        self._begun += 1
        for place, letter in enumerate(order):
            side, second = self.a if letter == "A" else self.b, int(letter in order[:place])
            done = 2 * LAUNCHES_PER_BLOCK * len(self.blocks)
            end = yield ScheduledLaunch(
                installation=side.installation,
                launch=replace(side.launch, launch=first + second),
                settings=side.settings,
                number=done + len(records) + 1,
                total=2 * LAUNCHES_PER_BLOCK * self.looks.at[-1],
                may_discard=may_discard,
            )
            records.append(end.record)
            if end.record.status is not Status.OK:
                break
        return records
