"""Counted: a run's records as they are stored -> as figures count them: blocks count whole, repeated ones once. Pure."""

from dataclasses import replace

from quadbench.artifacts import RunRecord, Status, Variant
from quadbench.statistics import LAUNCHES_PER_BLOCK

MOST_LAUNCHES = 1000  # of a variant in a run; launch n + 1000 repeats launch n, n + 2000 does so once more


def as_counted(stored: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return the records as figures count them."""
    return _without_repeated_blocks(_without_discarded_blocks(stored))


def _without_repeated_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return the records; as discarded those whose block was broken off and run again, however they ended themselves."""
    latest: dict[tuple[str, str, Variant, int], int] = {}
    for record in records:
        latest[_origin(record)] = max(record.launch // MOST_LAUNCHES, latest.get(_origin(record), 0))

    def superseded(record: RunRecord) -> RunRecord:
        times = latest[_origin(record)]
        if record.launch // MOST_LAUNCHES == times or record.status is Status.DISCARDED:
            return record
        again = f"its block was broken off and repeated, this launch as {record.launch % MOST_LAUNCHES + times * MOST_LAUNCHES}"
        return replace(record, status=Status.DISCARDED, reason=f"{record.reason}; {again}" if record.reason else again)

    return tuple(map(superseded, records))


def _origin(record: RunRecord) -> tuple[str, str, Variant, int]:
    """Return the part of a block that one variant has, which is the same for all of its repetitions."""
    block = record.launch % MOST_LAUNCHES // LAUNCHES_PER_BLOCK
    return record.device.address, record.device.serial, record.variant, block


def _without_discarded_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return the records; as discarded too those of a block in which one was, so that all variants lose as many."""
    discarded = {_block(record): record for record in records if record.status is Status.DISCARDED}

    def with_block(record: RunRecord) -> RunRecord:
        cause = discarded.get(_block(record))
        if cause is None or record.status is not Status.OK or record.variant is Variant.FLOAT:
            return record
        reason = f"discarded with its block, whose launch {cause.launch} of {cause.variant} was"
        return replace(record, status=Status.DISCARDED, error_class=cause.error_class, reason=reason)

    return tuple(map(with_block, records))


def _block(record: RunRecord) -> tuple[str, str, int]:
    return record.device.address, record.device.serial, record.launch // LAUNCHES_PER_BLOCK
