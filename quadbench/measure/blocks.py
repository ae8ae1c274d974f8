"""Blocks: the launches of a run, and the records that a device has of it -> the blocks that are still to be run there. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from quadbench.artifacts import LaunchPlan, RunRecord, Status, Variant
from quadbench.results.counted import MOST_LAUNCHES
from quadbench.statistics import LAUNCHES_PER_BLOCK

Block = tuple[LaunchPlan, ...]


def missing_blocks(launches: Sequence[LaunchPlan], stored: Sequence[RunRecord]) -> list[Block]:
    """Return the blocks of which no record is there, and under new numbers those that were broken off or are not all OK."""
    ends = {(record.variant, record.launch): record.status for record in stored}
    return [rest for block in _blocks(launches) if (rest := _missing(block, ends))]


def repeated(block: Block) -> Block:
    """Return a block to be run once more, under numbers of its own."""
    return tuple(replace(launch, launch=launch.launch + MOST_LAUNCHES) for launch in block)


def _missing(block: Block, ends: dict[tuple[Variant, int], Status]) -> Block | None:
    while any((launch.variant, launch.launch) in ends for launch in block):
        if all(ends.get((launch.variant, launch.launch)) is Status.OK for launch in block):
            return None
        block = repeated(block)
    return block


def _blocks(launches: Sequence[LaunchPlan]) -> list[Block]:
    """Return the launches by blocks in which every variant runs as often; the float launch is alone."""
    keyed = groupby(launches, key=lambda launch: (launch.variant is Variant.FLOAT, launch.launch // LAUNCHES_PER_BLOCK))
    return [tuple(block) for _, block in keyed]
