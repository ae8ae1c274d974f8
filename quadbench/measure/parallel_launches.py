"""Run launches on several devices: phones in parallel, devices that share this machine's CPU one after the other."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from quadbench.artifacts import LaunchPlan, RunRecord
from quadbench.devices import Device
from quadbench.errors import DeviceLostError, QuadbenchError
from quadbench.measure.launch import Ended, LaunchAborted, LaunchNotBegun, Stop, ctrl_c_asks, run_launch
from quadbench.measure.launch_schedule import Turn, Turns
from quadbench.observer import Observer

Keep = Callable[[RunRecord], None]
Regain = Callable[[DeviceLostError], object]  # returns when the device is restored, or raises QuadbenchError


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A device and its launches. Without `regain`, a device that is lost during a launch is not waited for."""

    device: Device
    turns: Turns
    regain: Regain | None = None


@dataclass(frozen=True, kw_only=True)
class Rest:
    """The launches of a device that did not run, because time ran out or the device was given up."""

    launches: Sequence[LaunchPlan] = ()
    given_up: QuadbenchError | None = None


def measure_launches(queues: Sequence[Queue], *, keep: Keep, observer: Observer, stop: Stop | None = None) -> dict[str, Rest]:
    """Run all launches on all devices and pass each record to `keep` at once. Return what did not run, by device address.

    Each phone has its own thread. Devices that share this machine's CPU run one after the other in the calling thread. The first
    Ctrl-C lets the current launches finish and starts no others; the second kills them.

    Raises:
        KeyboardInterrupt: Ctrl-C; the record of each launch that was finished or cut off has been handed over.
    """
    stop = stop or Stop()
    work = _LaunchesUnderWay(keep=keep, observer=observer, stop=stop)
    phones = [queue for queue in queues if not queue.device.shares_host_cpu]
    # The pool waits for its threads, so their devices are closed before.
    with (
        ctrl_c_asks(stop),
        ThreadPoolExecutor(max(1, 2 * len(queues))) as pool,  # for each queue, one to run it and one to wait for its device
        _closed_on_interrupt([one.device for one in phones], stop),
    ):
        pending = [pool.submit(work.run, [phone], pool) for phone in phones]
        rests = work.run([queue for queue in queues if queue.device.shares_host_cpu], pool)
        for rest in pending:
            rests |= rest.result()
    return {address: rest for address, rest in rests.items() if rest.launches or rest.given_up}


@dataclass(kw_only=True)
class _QueueUnderWay:
    """A queue in progress. Its generator `steps` yields, whenever the device is lost, a function that waits for the device."""

    address: str
    steps: Generator[Callable[[], object], None, Rest]
    regained: Future[object] | None = None

    @property
    def is_ready(self) -> bool:
        return self.regained is None or self.regained.done()

    def go_on(self) -> Callable[[], object]:
        """Run launches until the device is lost; return the function that waits for it."""
        try:
            if self.regained:
                self.regained.result()
        except QuadbenchError as error:
            return self.steps.throw(error)
        return next(self.steps)


@dataclass(frozen=True, kw_only=True)
class _LaunchesUnderWay:
    """The launches of a run in progress, with the record callback, observer and stop request that all devices share."""

    keep: Keep
    observer: Observer
    stop: Stop

    def run(self, queues: Sequence[Queue], pool: ThreadPoolExecutor) -> dict[str, Rest]:
        """Run queues one after the other in this thread. While the pool waits for a lost device, run the next queue."""
        rests: dict[str, Rest] = {}
        under_way = [_QueueUnderWay(address=queue.device.facts.address, steps=self._steps(queue)) for queue in queues]
        while under_way:
            if not any(one.is_ready for one in under_way):
                wait([one.regained for one in under_way if one.regained], return_when=FIRST_COMPLETED)
            ready = next(one for one in under_way if one.is_ready)
            try:
                ready.regained = pool.submit(ready.go_on())
            except StopIteration as through:
                under_way.remove(ready)
                rests[ready.address] = through.value
        return rests

    def _steps(self, queue: Queue) -> Generator[Callable[[], object], None, Rest]:
        """Run a device's launches one after the other. When the device is lost, yield the function that waits for it."""
        turn, rest = _next(queue.turns, None)
        while turn is not None and not self.stop.is_asked:
            try:
                end = self._launched(queue.device.facts.address, turn)
            except LaunchNotBegun:
                return Rest()
            if end.lost and queue.regain:
                try:
                    yield partial(queue.regain, end.lost)
                except QuadbenchError as error:
                    return Rest() if self.stop.is_asked else Rest(given_up=error)
            turn, rest = _next(queue.turns, end if queue.regain else Ended(record=end.record))
        return Rest(launches=rest)

    def _launched(self, address: str, turn: Turn) -> Ended:
        self.observer.launch(address, turn.launch, turn.number, turn.total)
        painted = partial(self.observer.painted, address)
        try:
            end = run_launch(
                turn.installation, turn.launch, turn.settings, self.stop, may_discard=turn.may_discard, painted=painted
            )
        except LaunchAborted as aborted:
            self.keep(aborted.record)
            raise
        self.keep(end.record)
        return end


def _next(turns: Turns, end: Ended | None) -> tuple[Turn | None, Sequence[LaunchPlan]]:
    """Return a device's next launch; after the last one return None and the launches that did not run."""
    try:
        return (next(turns) if end is None else turns.send(end)), ()
    except StopIteration as over:
        return None, over.value


@contextmanager
def _closed_on_interrupt(devices: Sequence[Device], stop: Stop) -> Iterator[None]:
    """On Ctrl-C, kill what runs on the phones, so that each thread stores its aborted launch and ends."""
    try:
        yield
    except KeyboardInterrupt:
        stop.cut_off()
        for device in devices:
            device.close()
        raise
