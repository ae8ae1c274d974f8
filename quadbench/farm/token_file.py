"""Write and remove a lease file on a device. The file tells jobs of farms with other databases that the device is in use.

The file is one line: database name, token, expiry by the device's clock, and owner. A job rewrites it before each launch. A
greater token of the same database, or an unexpired line of another database, blocks the job.
"""

import logging

from quadbench.artifacts.safe_text import one_line
from quadbench.devices import Device
from quadbench.errors import DeviceError, LeaseError
from quadbench.farm.leases import Lease

_VALID_S = 7200  # longer than most launches; a killed job blocks other databases for this time
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

log = logging.getLogger(__name__)


def write_token(device: Device, database: str, lease: Lease) -> None:
    """Write a job's lease to the lease file on a device. Raise LeaseError if the file already contains a newer lease of the
    job's database, or an unexpired lease of another database.

    Raises:
        DeviceError: the device does not answer, or the file cannot be written.
    """
    path = _path(device)
    words = [path, database, str(lease.token), str(_VALID_S), " ".join(lease.owner.split())]
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
        device.shell(["sh", "-c", _REMOVE, "sh", _path(device), database, str(lease.token)], _TIMEOUT_S)
    except DeviceError as error:
        log.info("%s: the token file is left there: %s", device.facts.address, error.message)


def _path(device: Device) -> str:
    return f"{device.root}/lease"
