"""Token file: a lease and a device -> the lease written there, so that processes with other databases see that it is taken.

One line: the database's name, the token, until when it counts by the device's own clock, and the owner. A job writes it anew
before each launch. One of the same database with a greater token, or one of another that still counts, stands against it.
"""

import logging

from quadbench.artifacts.names import one_line
from quadbench.devices import Device
from quadbench.errors import DeviceError, LeaseError
from quadbench.farm.leases import Lease

_VALID_S = 7200  # longer than most launches; a job that was killed keeps other databases away for so long
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
    """Write a lease into the device's token file.

    Raises:
        LeaseError: one stands there that goes before it.
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
    """Remove the token file if it is that of the lease; a device that does not answer keeps it until it counts no more."""
    try:
        device.shell(["sh", "-c", _REMOVE, "sh", _path(device), database, str(lease.token)], _TIMEOUT_S)
    except DeviceError as error:
        log.info("%s: the token file is left there: %s", device.facts.address, error.message)


def _path(device: Device) -> str:
    return f"{device.root}/lease"
