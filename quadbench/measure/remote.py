"""Remote: a launch's folder on a device, with its plan in it and gone afterwards, as is what broken connections left there."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quadbench.artifacts.device_text import one_line
from quadbench.devices import Device
from quadbench.errors import DeviceError
from quadbench.results.layout import Layout

_TIMEOUT_S = 30.0
_LIST = 'if [ -d "$1" ]; then ls "$1"; fi'
_REMOVE = 'cd "$1" && shift && rm -rf "$@"'
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_MOST_AT_ONCE = 200  # names in one command, which has at most 64 KB

log = logging.getLogger(__name__)


def runs_folder(device: Device) -> str:
    """Return the folder of all launches on a device."""
    return f"{device.root}/runs"


@contextmanager
def remote_folder(device: Device, run_id: str, plan: Path, layout: Layout) -> Iterator[str]:
    """Make the launch's folder with its plan, give its path, and remove it afterwards; the objects stay.

    Folders of this results folder's runs that are there already are removed first: who holds the device's lock knows that nobody
    uses them. Those of other results folders are left alone.

    Raises:
        DeviceError: the plan cannot be written there.
    """
    folder = f"{runs_folder(device)}/{run_id}"
    _remove_left(device, layout)
    try:
        device.push(plan, f"{folder}/plan.json")
        yield folder
    finally:
        try:
            device.shell(["rm", "-rf", folder], _TIMEOUT_S)
        except DeviceError as error:
            log.warning(
                "%s: '%s' could not be removed; the next run removes it: %s",
                device.facts.address,
                folder,
                one_line(str(error)),
            )


def _remove_left(device: Device, layout: Layout) -> None:
    """Remove the folders of runs that this results folder knows."""
    there = device.shell(["sh", "-c", _LIST, "sh", runs_folder(device)], _TIMEOUT_S).stdout.splitlines()
    ours = [name for name in there if _RUN_ID.fullmatch(name) and layout.run(name).is_dir()]
    for start in range(0, len(ours), _MOST_AT_ONCE):
        names = ours[start : start + _MOST_AT_ONCE]
        log.info("%s: removing what earlier launches left: %s", device.facts.address, ", ".join(names))
        device.shell(["sh", "-c", _REMOVE, "sh", runs_folder(device), *names], _TIMEOUT_S)
