"""Run launches on several devices. Phones run in parallel; devices that share this machine's CPU run one after another."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from quadbench.artifacts import LaunchPlan, RunRecord, Status
from quadbench.devices import Device
from quadbench.errors import DeviceLostError, QuadbenchError
from quadbench.measure.launch import LaunchAborted, LaunchEnd, LaunchNotStarted, StopFlag, run_launch, stop_on_ctrl_c
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import LaunchSchedule, ScheduledLaunch
from quadbench.observer import Observer

StoreRecord = Callable[[RunRecord], None]
Recover = Callable[[DeviceLostError], object]  # returns when the device is restored, or raises QuadbenchError


@dataclass(frozen=True, kw_only=True)
class DeviceQueue:
    """A device and its launches. `recover` waits until a lost device is back. If None, the next launch starts without a wait."""

    device: Device
    schedule: LaunchSchedule
    recover: Recover | None = None


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """The launches that a device left out when time ended (`launches`), or the error that ended its launches (`given_up`)."""

    launches: Sequence[LaunchPlan] = ()
    given_up: QuadbenchError | None = None


def measure_launches(
    queues: Sequence[DeviceQueue], *, store: StoreRecord, observer: Observer, stop: StopFlag | None = None
) -> dict[str, NotRun]:
    """Run all devices' launches and pass each record to `store` at once. Return a dict from device address to launches not run.

    Each phone has its own thread. Devices that share this machine's CPU run one after the other in the calling thread. The first
    Ctrl-C lets the current launches finish and starts no others; the second kills them. KeyboardInterrupt is then raised after
    all their records are stored.
    """
    stop = stop or StopFlag()
    work = _LaunchRunner(store=store, observer=observer, stop=stop)
    phones = [queue for queue in queues if not queue.device.shares_host_cpu]
    # The pool waits for its threads, so their devices are closed before.
    with (
        stop_on_ctrl_c(stop),
        ThreadPoolExecutor(max(1, 2 * len(queues))) as pool,  # for each queue, one to run it and one to wait for its device
        _closed_on_interrupt([one.device for one in phones], stop),
    ):
        pending = [pool.submit(work.run, [phone], pool) for phone in phones]
        not_run = work.run([queue for queue in queues if queue.device.shares_host_cpu], pool)
        for remaining in pending:
            not_run |= remaining.result()
    return {address: remaining for address, remaining in not_run.items() if remaining.launches or remaining.given_up}


@dataclass(kw_only=True)
class _RunningQueue:
    """A device's launches under way. Generator `steps` runs them. `recovered` is the last wait for the lost device, a Future."""

    address: str
    steps: Generator[Callable[[], object], None, NotRun]
    recovered: Future[object] | None = None

    @property
    def is_ready(self) -> bool:
        return self.recovered is None or self.recovered.done()

    def proceed(self) -> Callable[[], object]:
        """Run launches. For a lost device, return a function (no arguments) that waits. Finally, raise StopIteration(NotRun)."""
        try:
            if self.recovered:
                self.recovered.result()
        except QuadbenchError as error:
            return self.steps.throw(error)
        return next(self.steps)


@dataclass(frozen=True, kw_only=True)
class _LaunchRunner:
    """Runs launches on all devices. `store` saves each record, `observer` shows progress, and `stop` requests an early end."""

    store: StoreRecord
    observer: Observer
    stop: StopFlag

    def run(self, queues: Sequence[DeviceQueue], pool: ThreadPoolExecutor) -> dict[str, NotRun]:
        """Run launches device by device, but skip a device while it is lost. Return a dict from device address to NotRun."""
        not_run: dict[str, NotRun] = {}
        under_way = [_RunningQueue(address=queue.device.facts.address, steps=self._steps(queue)) for queue in queues]
        while under_way:
            if not any(one.is_ready for one in under_way):
                wait([one.recovered for one in under_way if one.recovered], return_when=FIRST_COMPLETED)
            ready = next(one for one in under_way if one.is_ready)
            try:
                ready.recovered = pool.submit(ready.proceed())
            except StopIteration as through:
                under_way.remove(ready)
                not_run[ready.address] = through.value
        return not_run

    def _steps(self, queue: DeviceQueue) -> Generator[Callable[[], object], None, NotRun]:
        """Run launches. For a lost device, yield a function (no arguments) that waits. Return a NotRun (empty if all ran)."""
        entry, remaining = _next_launch(queue.schedule, None)
        has_waited = False  # in vain; a device that is not ready costs one wait, not one for each launch
        while entry is not None and not self.stop.is_requested:
            try:
                end = self._run_launch(queue.device.facts.address, entry, replace(entry.settings, has_waited=has_waited))
            except LaunchNotStarted:
                return NotRun()
            has_waited = end.record.status is Status.SKIPPED
            if end.lost and queue.recover:
                try:
                    yield partial(queue.recover, end.lost)
                except QuadbenchError as error:
                    return NotRun() if self.stop.is_requested else NotRun(given_up=error)
            entry, remaining = _next_launch(queue.schedule, end if queue.recover else LaunchEnd(record=end.record))
        return NotRun(launches=remaining)

    def _run_launch(self, address: str, entry: ScheduledLaunch, settings: LaunchSettings) -> LaunchEnd:
        self.observer.launch_started(address, entry.launch, entry.number, entry.total)
        on_image = partial(self.observer.image_done, address)
        try:
            end = run_launch(
                entry.installation, entry.launch, settings, self.stop, may_discard=entry.may_discard, on_image=on_image
            )
        except LaunchAborted as aborted:
            self.store(aborted.record)
            raise
        self.store(end.record)
        return end


def _next_launch(schedule: LaunchSchedule, end: LaunchEnd | None) -> tuple[ScheduledLaunch | None, Sequence[LaunchPlan]]:
    """Tell a schedule how the last launch ended (`end`). Return (next launch, ()), or (None, launches left out) at the end."""
    try:
        return (next(schedule) if end is None else schedule.send(end)), ()
    except StopIteration as over:
        return None, over.value


@contextmanager
def _closed_on_interrupt(devices: Sequence[Device], stop: StopFlag) -> Iterator[None]:
    """Kill the devices' harnesses if Ctrl-C ends the `with` block. The devices' threads then store the launches as aborted."""
    try:
        yield
    except KeyboardInterrupt:
        stop.cut_off()
        for device in devices:
            device.close()
        raise
