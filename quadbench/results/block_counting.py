"""Selection of the stored launches that a run's results use. Launches of one A B B A block are all used, or none of them."""

from dataclasses import replace

from quadbench.artifacts import RunRecord, Status, Variant
from quadbench.statistics import LAUNCHES_PER_BLOCK

MAX_LAUNCHES = 1000  # launches of a variant in a run; launch n + 1000 repeats launch n, and n + 2000 repeats it again


def count_blocks(stored: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return all launch records. Mark those of repeated or partly discarded A B B A blocks as DISCARDED, so results omit them."""
    return _without_repeated_blocks(_without_discarded_blocks(stored))


def _without_repeated_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Mark a block's launch records as DISCARDED if the block was run again later. Results use only its last repetition."""
    latest: dict[tuple[str, str, Variant, int], int] = {}
    for record in records:
        latest[_origin(record)] = max(record.launch // MAX_LAUNCHES, latest.get(_origin(record), 0))

    def superseded(record: RunRecord) -> RunRecord:
        times = latest[_origin(record)]
        if record.launch // MAX_LAUNCHES == times or record.status is Status.DISCARDED:
            return record
        number = record.launch % MAX_LAUNCHES + times * MAX_LAUNCHES
        again = f"its block was interrupted and repeated; launch {number} repeats this launch"
        return replace(record, status=Status.DISCARDED, reason=f"{record.reason}; {again}" if record.reason else again)

    return tuple(map(superseded, records))


def _origin(record: RunRecord) -> tuple[str, str, Variant, int]:
    """Return the device address, serial, variant and block number of a launch. They are equal for a block and its repetition."""
    block = record.launch % MAX_LAUNCHES // LAUNCHES_PER_BLOCK
    return record.device.address, record.device.serial, record.variant, block


def _without_discarded_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """If a launch of a block is DISCARDED, discard its other OK launches too. So all variants keep equally many launches."""
    discarded = {_block(record): record for record in records if record.status is Status.DISCARDED}

    def with_block(record: RunRecord) -> RunRecord:
        cause = discarded.get(_block(record))
        if cause is None or record.status is not Status.OK or record.variant is Variant.FLOAT:
            return record
        reason = f"discarded with its block, because launch {cause.launch} of {cause.variant} was discarded"
        return replace(record, status=Status.DISCARDED, error_class=cause.error_class, reason=reason)

    return tuple(map(with_block, records))


def _block(record: RunRecord) -> tuple[str, str, int]:
    return record.device.address, record.device.serial, record.launch // LAUNCHES_PER_BLOCK
