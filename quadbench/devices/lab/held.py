"""Lease devices for one job, and renew the leases regularly until the job ends.

A lease is in the database, and in a file on the device, which tells jobs of other databases that the device is in use. The file
is one line: database name, token, expiry by the device's clock, and owner. A job rewrites it before each launch. A greater token
of the same database, or an unexpired line of another database, blocks the job.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from quadbench.artifacts import ErrorClass, RunRecord, Status
from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.devices.lab.inventory import Inventory
from quadbench.devices.lab.leases import Lease, Leases, lease_name, lease_time_s
from quadbench.errors import DeviceError, LeaseError, QuadbenchError
from quadbench.host import background, user_and_host
from quadbench.results.engine import database_of, open_engine
from quadbench.results.layout import Layout

_FILE_VALID_S = 7200  # longer than most launches; a killed job blocks other databases for this time
_TIMEOUT_S = 30.0
_TAKEN = 3  # the script's exit code
_WRITE = """\
if read -r database token until owner <"$1" 2>/dev/null; then
  if [ "$database" = "$2" ]; then [ "$token" -gt "$3" ] && echo "$owner" && exit 3
  elif [ "$until" -gt "$(date +%s)" ]; then echo "$owner"; exit 3
  fi
fi 2>/dev/null
mkdir -p "${1%/*}" && echo "$2 $3 $(($(date +%s) + $4)) $5" >"$1.new" && mv "$1.new" "$1"
"""
_REMOVE = """\
if read -r database token rest <"$1" 2>/dev/null && [ "$database $token" = "$2 $3" ]; then rm -f "$1"; fi
"""

_BEATS = 4  # renewals in a lease's time, so that a single failure does no harm

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The device leases of one job, by device address. `faults` maps the address of a device that failed to an error message."""

    leases: Leases
    database: str
    by_address: Mapping[str, Lease]
    faults: dict[str, str] = field(default_factory=dict)

    def confirm(self, device: Device) -> None:
        """Renew the job's lease of a device in the database and in the device's lease file. Raise LeaseError if it is over.

        Raises:
            LeaseError: the lease is over, or the device's lease file contains a lease that takes precedence.
            DeviceError: the device does not answer.
            StorageError, ArtifactError: the database does not answer.
        """
        lease = self.by_address[device.facts.address]
        self.leases.renew(lease)
        write_token(device, self.database, lease)

    def guard(self, address: str) -> Callable[[sa.Connection], None] | None:
        """Return a function(connection) that raises LeaseError if the device's lease is over. Return None if it is not leased."""
        lease = self.by_address.get(address)
        return partial(self.leases.check, lease=lease) if lease else None

    def note_left_out(self, device: Device, error: QuadbenchError) -> None:
        """Count `error` against the health of a device that the job leaves out. Ignore errors other than DeviceError."""
        if isinstance(error, DeviceError):
            self.faults.setdefault(device.facts.address, error.message)

    def note_lost(self, device: Device, reason: str) -> None:
        """Count a lost connection against a device's health, even if the device connects again later."""
        self.faults.setdefault(device.facts.address, reason)

    def note_record(self, record: RunRecord) -> None:
        """Count a failed launch against the device's health if the device caused the failure. Ignore all other launches."""
        if record.status is Status.FAILED and record.error_class is ErrorClass.DEVICE:
            self.faults.setdefault(record.device.address, record.reason or "no reason")


@contextmanager
def held(
    devices: Sequence[Device],
    engine: sa.Engine,
    purpose: str,
    *,
    lease_s: float | None = None,
    to_examine: bool = False,
    left_out: dict[str, QuadbenchError] | None = None,
) -> Iterator[Held]:
    """Lease `devices` until the `with` block ends, and yield the leases as a Held. Close each Device whose lease is lost.

    Phones in quarantine are refused, and the job's outcome updates each phone's health, unless `to_examine`. With `left_out`,
    unavailable devices are put there with their errors, and the result may be empty.

    Raises:
        DeviceError: a device is leased by another job (LeaseError), does not answer, or is in quarantine; none is leased then.
    """
    inventory, leases, owner = Inventory(engine), Leases(engine), user_and_host()
    database, by_address = leases.database_name(), dict[str, Lease]()

    def take(device: Device) -> None:
        if not to_examine:
            inventory.require_usable([device])
        lease = leases.take(lease_name(device.family, device.serial), owner, purpose, lease_s)
        stack.callback(_end, leases, lease)
        by_address[device.facts.address] = lease

    def mark(device: Device) -> None:  # writes to the phone, which may be slow
        write_token(device, database, by_address[device.facts.address])
        stack.callback(remove_token, device, database, by_address[device.facts.address])

    with ExitStack() as stack:
        work = [(device, by_address[device.facts.address]) for device in each_or_left_out(devices, take, left_out)]
        stack.enter_context(_heartbeat(leases, work, lease_s))
        taken = each_or_left_out([device for device, _ in work], mark, left_out)
        _give_others_back(leases, work, taken)
        job = Held(leases=leases, database=database, by_address={device.facts.address: lease for device, lease in work})
        with nullcontext() if to_examine else _health_noted(inventory, taken, job.faults):
            yield job


def each_or_left_out(
    devices: Sequence[Device], act: Callable[[Device], None], left_out: dict[str, QuadbenchError] | None
) -> list[Device]:
    """Return the devices for which `act` raises no DeviceError. Put each DeviceError into `left_out`, or raise it if None.

    `left_out` is a dict from device address to error.
    """
    fine = []
    for device in devices:
        try:
            act(device)
            fine.append(device)
        except DeviceError as error:
            if left_out is None:
                raise
            left_out[device.facts.address] = error
    return fine


def require_any(devices: Sequence[object], left_out: Mapping[str, QuadbenchError] | None) -> None:
    """If `devices` is empty, raise the first error in `left_out`, a dict from device address to error. Otherwise do nothing.

    Raises:
        QuadbenchError: the error of the first device.
    """
    if left_out and not devices:
        raise next(iter(left_out.values()))


@contextmanager
def leased(devices: Sequence[Device], layout: Layout, purpose: str, *, to_examine: bool = False) -> Iterator[Held]:
    """Lease devices until the `with` block ends, using the database of the results folder `layout`. Yield the leases as a Held.

    Raises:
        UserError, StorageError, ArtifactError, MissingDependencyError: the database cannot be opened.
        DeviceError: as `held`.
    """
    engine = open_engine(database_of(layout))
    try:
        with held(devices, engine, purpose, to_examine=to_examine) as leases:
            yield leases
    finally:
        engine.dispose()


@contextmanager
def _health_noted(inventory: Inventory, devices: Sequence[Device], faults: Mapping[str, str]) -> Iterator[None]:
    """Count a failed job for each phone in `faults` after the `with` block, and a good job for the rest if the block succeeds."""
    is_through = False
    try:
        yield
        is_through = True
    finally:
        for device in devices:
            fault = faults.get(device.facts.address)
            if fault or is_through:
                with _warned("how it has done is not noted"):
                    inventory.note_job(device, fault)


def _give_others_back(leases: Leases, work: list[tuple[Device, Lease]], taken: Sequence[Device]) -> None:
    """End the leases in `work`, pairs (device, lease), of devices that are not in `taken`. Remove these pairs from `work`."""
    for device, lease in [one for one in work if one[0] not in taken]:
        work.remove((device, lease))
        _end(leases, lease)


def _end(leases: Leases, lease: Lease) -> None:
    with _warned(f"the lease of '{lease.device}' ends by itself"):
        leases.end(lease)


@contextmanager
def _warned(consequence: str) -> Iterator[None]:
    """Log a QuadbenchError of the `with` block as a warning, and suppress it. `consequence` begins the log message."""
    try:
        yield
    except QuadbenchError as error:
        log.warning("%s: %s", consequence, error.message)


@contextmanager
def _heartbeat(leases: Leases, work: list[tuple[Device, Lease]], lease_s: float | None) -> Iterator[None]:
    """Renew a job's device leases in a thread until the `with` block ends. If a lease is lost, close the device's connection."""

    def beat(ended: threading.Event) -> None:
        lost = set[str]()
        while not ended.wait(lease_time_s(lease_s) / _BEATS):
            for device, lease in [one for one in work if one[1].device not in lost]:
                try:
                    leases.renew(lease, lease_s)
                except LeaseError as error:
                    lost.add(lease.device)
                    if (device, lease) in work:
                        log.warning("%s: %s", device.facts.address, error.message)
                        device.close()
                except QuadbenchError as error:
                    log.warning("%s: its lease was not renewed: %s", device.facts.address, error.message)

    with background(beat, "quadbench-heartbeat"):
        yield


def write_token(device: Device, database: str, lease: Lease) -> None:
    """Write a job's lease to the lease file on a device. Raise LeaseError if the file already contains a newer lease of the
    job's database, or an unexpired lease of another database.

    Raises:
        DeviceError: the device does not answer, or the file cannot be written.
    """
    path = _lease_file(device)
    words = [path, database, str(lease.token), str(_FILE_VALID_S), " ".join(lease.owner.split())]
    said = device.shell(["sh", "-c", _WRITE, "sh", *words], _TIMEOUT_S)
    if said.exit_code == _TAKEN:
        raise LeaseError(
            f"device '{device.facts.address}' is taken by {one_line(said.stdout) or 'somebody'}, as its file '{path}' says",
            hint="wait until that job is done; if it was killed, remove the file",
        )
    if said.exit_code != 0:
        raise DeviceError(f"'{path}' cannot be written on device '{device.facts.address}': {one_line(said.stderr)}")


def remove_token(device: Device, database: str, lease: Lease) -> None:
    """Delete the lease file on a device if it contains the lease `lease`. If the device does not answer, only log a message."""
    try:
        device.shell(["sh", "-c", _REMOVE, "sh", _lease_file(device), database, str(lease.token)], _TIMEOUT_S)
    except DeviceError as error:
        log.info("%s: the token file is left there: %s", device.facts.address, error.message)


def _lease_file(device: Device) -> str:
    return f"{device.root}/lease"
