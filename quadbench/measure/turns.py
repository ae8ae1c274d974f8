"""Turns: blocks of launches on one device, in order -> the next launch, knowing how those before it ended. Pure.

A device's turns are a generator: it yields a launch and is sent its record. What decides about launches, here or elsewhere, is
written as a loop over them and runs none itself.
"""

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from quadbench.artifacts import LaunchPlan, RunRecord, Status, Variant
from quadbench.harness.installation import Installation
from quadbench.measure.launch import LaunchSettings
from quadbench.statistics import LAUNCHES_PER_BLOCK


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A launch to run next, the `number` of a `total`. It may be discarded where it is repeated then."""

    installation: Installation
    launch: LaunchPlan
    settings: LaunchSettings
    number: int
    total: int
    may_discard: bool = False


Turns = Generator[Turn, RunRecord, None]
Block = tuple[LaunchPlan, ...]


def planned_turns(installation: Installation, launches: Sequence[LaunchPlan], settings: LaunchSettings, *, retries: int) -> Turns:
    """Yield the launches of a run, block by block; a block with a launch that is discarded is broken off and repeated at the end.

    The repeated launches have numbers of their own, which begin a block as well.
    """
    blocks, number, total = deque(_blocks(launches)), 0, len(launches)
    free = 1 + max((launch.launch for launch in launches), default=0)
    free += -free % LAUNCHES_PER_BLOCK
    while blocks:
        block = blocks.popleft()
        for launch in block:
            number += 1
            record = yield Turn(
                installation=installation,
                launch=launch,
                settings=settings,
                number=number,
                total=total,
                may_discard=retries > 0 and launch.variant is not Variant.FLOAT,
            )
            if record.status is Status.DISCARDED:
                first = min(launch.launch for launch in block)
                blocks.append(tuple(replace(launch, launch=launch.launch - first + free) for launch in block))
                retries, free = retries - 1, free + LAUNCHES_PER_BLOCK
                total = number + sum(map(len, blocks))
                break


def _blocks(launches: Sequence[LaunchPlan]) -> list[Block]:
    """Return the launches by blocks in which every variant runs as often; the float launch is alone."""
    keyed = groupby(launches, key=lambda launch: (launch.variant is Variant.FLOAT, launch.launch // LAUNCHES_PER_BLOCK))
    return [tuple(block) for _, block in keyed]
