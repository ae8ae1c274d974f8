"""Launches: installations and what each of them runs -> RunRecords, phones at the same time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from quadbench.artifacts import LaunchPlan, RunRecord
from quadbench.devices import Device
from quadbench.harness.installation import Installation
from quadbench.measure.launch import LaunchAborted, LaunchSettings, measure_launch
from quadbench.observer import Observer

Keep = Callable[[RunRecord], None]


def measure_launches(
    installations: Sequence[Installation],
    launches: Sequence[LaunchPlan],
    settings: LaunchSettings,
    *,
    keep: Keep,
    observer: Observer,
) -> None:
    """Run every launch on every device and hand each record to `keep` as soon as it is there.

    Phones run at the same time, each in a thread; devices that share this machine's CPU one after the other, in this one.

    Raises:
        KeyboardInterrupt: Ctrl-C; the record of each launch that was cut off has been handed over.
    """
    interrupted = threading.Event()

    def run_all(installation: Installation) -> None:
        for number, launch in enumerate(launches, start=1):
            if interrupted.is_set():
                return
            observer.launch(installation.address, launch, number, len(launches))
            try:
                record = measure_launch(installation, launch, settings, interrupted)
            except LaunchAborted as aborted:
                keep(aborted.record)
                raise
            keep(record)

    phones = [one for one in installations if not one.device.shares_host_cpu]
    # The pool waits for its threads, so their devices are closed before.
    with ThreadPoolExecutor(max(1, len(phones))) as pool, _closed_on_interrupt([one.device for one in phones], interrupted):
        pending = [pool.submit(run_all, phone) for phone in phones]
        for installation in installations:
            if installation.device.shares_host_cpu:
                run_all(installation)
        for phone in pending:
            phone.result()


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
