"""Launches: devices and the turns of each -> RunRecords, phones at the same time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from quadbench.artifacts import RunRecord
from quadbench.devices import Device
from quadbench.measure.launch import LaunchAborted, measure_launch
from quadbench.measure.turns import Turn, Turns
from quadbench.observer import Observer

Keep = Callable[[RunRecord], None]


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A device and the launches that it runs."""

    device: Device
    turns: Turns


def measure_launches(queues: Sequence[Queue], *, keep: Keep, observer: Observer) -> None:
    """Run every launch on every device and hand each record to `keep` as soon as it is there.

    Phones run at the same time, each in a thread; devices that share this machine's CPU one after the other, in this one.

    Raises:
        KeyboardInterrupt: Ctrl-C; the record of each launch that was cut off has been handed over.
    """
    interrupted = threading.Event()

    def run_all(queue: Queue) -> None:
        turn = next(queue.turns, None)
        while turn is not None and not interrupted.is_set():
            observer.launch(queue.device.facts.address, turn.launch, turn.number, turn.total)
            try:
                record = measure_launch(turn.installation, turn.launch, turn.settings, interrupted, may_discard=turn.may_discard)
            except LaunchAborted as aborted:
                keep(aborted.record)
                raise
            keep(record)
            turn = _next(queue.turns, record)

    phones = [queue for queue in queues if not queue.device.shares_host_cpu]
    # The pool waits for its threads, so their devices are closed before.
    with ThreadPoolExecutor(max(1, len(phones))) as pool, _closed_on_interrupt([one.device for one in phones], interrupted):
        pending = [pool.submit(run_all, phone) for phone in phones]
        for queue in queues:
            if queue.device.shares_host_cpu:
                run_all(queue)
        for phone in pending:
            phone.result()


def _next(turns: Turns, record: RunRecord) -> Turn | None:
    try:
        return turns.send(record)
    except StopIteration:
        return None


@contextmanager
def _closed_on_interrupt(devices: Sequence[Device], interrupted: threading.Event) -> Iterator[None]:
    """On Ctrl-C, end what runs on the phones so that their threads end too: each stores its last launch as it was cut off."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted.set()
        for device in devices:
            device.close()
        raise
