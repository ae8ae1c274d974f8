"""Schedule: which launch a device runs next, from what is planned, already recorded and possible in the time left."""

import random
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, groupby, islice
from typing import TypeVar, assert_never

from quadbench.artifacts import Bundle, LaunchPlan, RunRecord, Status, Variant
from quadbench.artifacts.run_record import SequenceBlock, has_references, item_counts, with_own_graph
from quadbench.harness.installation import Installation
from quadbench.measure.launch import Ended
from quadbench.measure.launch_record import LaunchSettings
from quadbench.recipe import Measure, Terms
from quadbench.results.counted import MOST_LAUNCHES
from quadbench.statistics import LAUNCHES_PER_BLOCK, Looks

_Side = TypeVar("_Side")

Block = tuple[LaunchPlan, ...]

PairedBlock = tuple[RunRecord, RunRecord, RunRecord, RunRecord]  # A, B, B, A: each side's in the order measured
Judge = Callable[[Sequence[PairedBlock], Looks], tuple[Looks, bool]]


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
    # Every image once, in the first launch: a device that computes wrongly is found out before it is measured.
    every = tuple(SequenceBlock(task=name, warmup=0, iterations=count) for name, count in counts.items())
    launches = [LaunchPlan(variant=Variant.FLOAT, launch=0, sequence=every)] if has_references else []
    of_own = {name: count for name, count in counts.items() if own is None or name in own}
    of_all, of_own_alone = (measured_sequence(terms.measure, each) for each in (counts, of_own))
    number_of = dict.fromkeys(Variant, 0)
    for variant in _order(terms, seed):
        if sequence := of_own_alone if variant.has_unet_per_task else of_all:
            launches.append(LaunchPlan(variant=variant, launch=number_of[variant], sequence=sequence))
            number_of[variant] += 1
    return tuple(launches)


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


def missing_blocks(launches: Sequence[LaunchPlan], stored: Sequence[RunRecord]) -> list[Block]:
    """Return the blocks that a resumed run still has to launch: unmeasured ones, and failed or partial ones under new numbers."""
    ends = {(record.variant, record.launch): record.status for record in stored}
    # In a block every variant runs as often; the float launch is alone.
    keyed = groupby(launches, key=lambda launch: (launch.variant is Variant.FLOAT, launch.launch // LAUNCHES_PER_BLOCK))
    return [rest for _, block in keyed if (rest := _missing(tuple(block), ends))]


def repeated(block: Block) -> Block:
    """Return a block to be run once more, under numbers of its own."""
    return tuple(replace(launch, launch=launch.launch + MOST_LAUNCHES) for launch in block)


def _missing(block: Block, ends: dict[tuple[Variant, int], Status]) -> Block | None:
    while any((launch.variant, launch.launch) in ends for launch in block):
        if all(ends.get((launch.variant, launch.launch)) is Status.OK for launch in block):
            return None
        block = repeated(block)
    return block


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The moment at which a run shall be over, on a clock in seconds."""

    ends_at: float
    clock: Callable[[], float] = time.monotonic

    @property
    def left_s(self) -> float:
        return self.ends_at - self.clock()

    def allows(self, block: Block, ended: Sequence[RunRecord]) -> bool:
        """Say whether a block would end in time, by what launches on the same device took so far."""
        return expected_s(block, ended) <= self.left_s


def expected_s(block: Block, ended: Sequence[RunRecord]) -> float:
    """Return how long a block takes: each launch as long as the longest of its variant, and without a whole one at least as its
    images do at the slowest: those of whole launches, else of failed ones. One that was interrupted tells of nothing.

    Where nothing was measured yet, nothing is known, and it takes no time.
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
class Turn:
    """A launch to run next, the `number` of a `total`. It may be discarded where it is repeated then."""

    installation: Installation
    launch: LaunchPlan
    settings: LaunchSettings
    number: int
    total: int
    may_discard: bool = False


Turns = Generator[Turn, Ended, Sequence[LaunchPlan]]  # it returns the launches for which there is no time


def planned_turns(
    installation: Installation,
    launches: Sequence[LaunchPlan],
    settings: LaunchSettings,
    *,
    repeats: int,
    stored: Sequence[RunRecord] = (),
    budget: Budget | None = None,
) -> Turns:
    """Yield the launches of a run, block by block; a block with a launch that is discarded is broken off and repeated at the end.

    One in which the device was lost is repeated at once. Of a run that goes on, `stored` has the device's records: what is whole
    and OK is not run again. A block that would not end within the budget is not begun, nor is any after it.
    """
    blocks, ended = deque(missing_blocks(launches, stored)), list(stored)
    total, number = len(launches), len(launches) - sum(map(len, blocks))
    repeats -= sum(record.status is Status.DISCARDED for record in stored)
    while blocks and (budget is None or budget.allows(blocks[0], ended)):
        block = blocks.popleft()
        for launch in block:
            number += 1
            end = yield Turn(
                installation=installation,
                launch=launch,
                settings=settings,
                number=number,
                total=total,
                may_discard=repeats > 0 and launch.variant is not Variant.FLOAT,
            )
            ended.append(end.record)
            if end.lost:
                blocks.appendleft(repeated(block))
            elif end.record.status is Status.DISCARDED:
                blocks.append(repeated(block))
                repeats -= 1
            else:
                continue
            total = number + sum(map(len, blocks))
            break
    return [launch for block in blocks for launch in block]


@dataclass(frozen=True, kw_only=True)
class SideLaunch:
    """A side of a comparison on one device: what each of its launches runs."""

    installation: Installation
    launch: LaunchPlan
    settings: LaunchSettings


@dataclass(kw_only=True)
class Interleaved:
    """Launches of two sides in blocks A B B A and B A A B, until a judge has seen enough or the looks are through.

    Their order is drawn by `seed`.

    The judge is asked after each whole block, with all of them so far; it answers with the looks to go on with, and whether it
    has seen enough. A block with a launch that is not OK is broken off and counts on neither side; one more of them than there
    are `repeats` ends it all, and `broken` says why.
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

    def turns(self) -> Turns:
        yield from self._turns()
        self.is_over = True
        return ()

    def _turns(self) -> Generator[Turn, Ended, None]:
        repeats, has_seen_enough = self.repeats, False
        orders = drawn_blocks("AB", self.seed)
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

    def _block(self, order: Sequence[str], *, may_discard: bool) -> Generator[Turn, Ended, list[RunRecord]]:
        """Run a block; return its records, of which the last one alone may be another than OK."""
        records: list[RunRecord] = []
        first = LAUNCHES_PER_BLOCK * self._begun
        self._begun += 1
        for place, letter in enumerate(order):
            side, second = self.a if letter == "A" else self.b, int(letter in order[:place])
            done = 2 * LAUNCHES_PER_BLOCK * len(self.blocks)
            end = yield Turn(
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
