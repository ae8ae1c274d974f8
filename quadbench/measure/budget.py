"""Budget: the launches so far, and the time that is left -> whether a block of launches would end in time. Pure."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quadbench.artifacts import RunRecord, Status, Variant
from quadbench.measure.blocks import Block


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
