"""Keeping: a record of work under way -> the record stored, if its device is still the work's, and told to who watches."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from quadbench.artifacts import RunRecord
from quadbench.farm.held import Held
from quadbench.observer import Observer
from quadbench.results.layout import Layout
from quadbench.results.records import Records
from quadbench.results.stored_runs import keep_record


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """The way of records into the results. `keep_files` is told of each first; `guard` refuses one within its transaction."""

    records: Records
    layout: Layout
    leases: Held
    observer: Observer
    keep_files: Callable[[RunRecord], object]
    guard: Callable[[sa.Connection], object]
    kept: Counter[str] = field(default_factory=Counter)  # launches by the address of their device

    def keep(self, record: RunRecord) -> None:
        """Store a record of a launch, and tell who wants to know of it.

        Raises:
            LeaseError: its device, or the work itself, is somebody else's by now.
            StorageError: it cannot be stored.
        """
        lease_guard = self.leases.guard(record.device.address)

        def guard(connection: sa.Connection) -> None:
            self.guard(connection)
            if lease_guard:
                lease_guard(connection)

        self.keep_files(record)
        keep_record(self.records, record, self.layout, guard)
        self.kept[record.device.address] += 1
        self.leases.note_record(record)
        self.observer.record(record)
