"""Select the launches that a run's results use. A block of four launches (variants A, B, B, A) is used whole or not at all."""

from dataclasses import replace

from quadbench.artifacts import RunRecord, Status, Variant
from quadbench.statistics import LAUNCHES_PER_BLOCK

MAX_LAUNCHES = 1000  # launches of a variant in a run; launch n + 1000 repeats launch n, and n + 2000 repeats it again


def count_blocks(stored: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return all launch records. Mark blocks that were run again DISCARDED, and OK launches whose block has a discarded one."""
    return _without_repeated_blocks(_without_discarded_blocks(stored))


def _without_repeated_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return all launch records. If a block was run again, mark all its records DISCARDED except those of the last repetition."""
    if all(record.launch < MAX_LAUNCHES for record in records):
        return records
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
    """Return the tuple (device address, serial, variant, block number) of a launch. All repetitions of a block share a number."""
    block = record.launch % MAX_LAUNCHES // LAUNCHES_PER_BLOCK
    return record.device.address, record.device.serial, record.variant, block


def _without_discarded_blocks(records: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """Return all launch records. If a launch is DISCARDED, mark all OK launches of its block DISCARDED, except FLOAT launches."""
    discarded = {_block(record): record for record in records if record.status is Status.DISCARDED}
    if not discarded:
        return records

    def with_block(record: RunRecord) -> RunRecord:
        cause = discarded.get(_block(record))
        if cause is None or record.status is not Status.OK or record.variant is Variant.FLOAT:
            return record
        reason = f"discarded with its block, because launch {cause.launch} of {cause.variant} was discarded"
        return replace(record, status=Status.DISCARDED, error_class=cause.error_class, reason=reason)

    return tuple(map(with_block, records))


def _block(record: RunRecord) -> tuple[str, str, int]:
    return record.device.address, record.device.serial, record.launch // LAUNCHES_PER_BLOCK
