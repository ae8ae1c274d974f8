"""Turns: blocks of launches on one device, in order -> the next launch, knowing how those before it ended. Pure.

A device's turns are a generator: it yields a launch and is sent how it ended. What decides about launches, here or elsewhere, is
written as a loop over them and runs none itself.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

from quadbench.artifacts import LaunchPlan, RunRecord, Status, Variant
from quadbench.harness.installation import Installation
from quadbench.measure.blocks import missing_blocks, repeated
from quadbench.measure.budget import Budget
from quadbench.measure.findings import LaunchSettings
from quadbench.measure.launch import Ended
from quadbench.measure.schedule import drawn_blocks
from quadbench.statistics import LAUNCHES_PER_BLOCK, Looks


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


PairedBlock = tuple[RunRecord, RunRecord, RunRecord, RunRecord]  # A, B, B, A: each side's in the order measured
Judge = Callable[[Sequence[PairedBlock], Looks], tuple[Looks, bool]]


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
        """Yield the launches."""
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
