"""Remote: a launch's folder on a device, with its plan in it and gone afterwards, as is what broken connections left there."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from quadbench.artifacts import MIB
from quadbench.artifacts.names import one_line
from quadbench.devices import Device
from quadbench.errors import DeviceError, DeviceFullError
from quadbench.results.layout import Layout

_TIMEOUT_S = 30.0
_LIST = 'if [ -d "$1" ]; then ls "$1"; fi'
# What still runs in such a folder is a harness that nobody listens to any more.
_REMOVE = """\
cd "$1" 2>/dev/null || exit 0
shift
for process in /proc/[0-9]*; do
  for name; do
    if [ "$process/cwd" -ef "$name" ]; then kill -KILL "${process##*/}"; fi
  done
done
rm -rf "$@"
"""
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
SPACE_BYTES = 8 * MIB  # that must be left before a launch, whose events and images take a few
_MOST_AT_ONCE = 200  # names in one command, which has at most 64 KB

log = logging.getLogger(__name__)


def runs_folder(device: Device) -> str:
    """Return the folder of all launches on a device."""
    return f"{device.root}/runs"


def remove_left(device: Device, layout: Layout) -> None:
    """Remove what earlier launches left: folders of runs that this results folder knows, and harnesses that still run there.

    Who holds the device's lock knows that nobody uses them. Those of other results folders are left alone.

    Raises:
        DeviceError: the device does not answer.
    """
    there = device.shell(["sh", "-c", _LIST, "sh", runs_folder(device)], _TIMEOUT_S).stdout.splitlines()
    ours = [name for name in there if _RUN_ID.fullmatch(name) and layout.run(name).is_dir()]
    for start in range(0, len(ours), _MOST_AT_ONCE):
        names = ours[start : start + _MOST_AT_ONCE]
        log.info("%s: removing what earlier launches left: %s", device.facts.address, ", ".join(names))
        _remove(device, names)


@contextmanager
def remote_folder(device: Device, run_id: str, plan: Path) -> Iterator[str]:
    """Make the launch's folder with its plan, give its path, and remove it afterwards; the objects stay.

    Raises:
        DeviceFullError: there is too little space for what a launch writes.
        DeviceError: the plan cannot be written there.
    """
    folder = f"{runs_folder(device)}/{run_id}"
    try:
        device.push(plan, f"{folder}/plan.json")
        _check_space(device, folder)
        yield folder
    finally:
        try:
            _remove(device, [run_id])
        except DeviceError as error:
            log.warning(
                "%s: '%s' could not be removed; the next run removes it: %s",
                device.facts.address,
                folder,
                one_line(error.message),
            )


def _check_space(device: Device, folder: str) -> None:
    free = device.free_bytes(folder)
    if free < SPACE_BYTES:
        raise DeviceFullError(
            f"'{folder}' on {device.facts.address} has {free / MIB:.1f} MB left, a launch needs {SPACE_BYTES / MIB:g} MB for its"
            " images and events",
            hint=f"make room there; what lies below {device.root} may be deleted, it is sent again when it is needed",
        )


def _remove(device: Device, names: Sequence[str]) -> None:
    device.shell(["sh", "-c", _REMOVE, "sh", runs_folder(device), *names], _TIMEOUT_S)
