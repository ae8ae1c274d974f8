"""Command-line options of commands that measure: devices, retries, time budget, and waiting for busy devices."""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from quadbench.artifacts.run_record import RETRIES, WAIT_S
from quadbench.cli.options import Options, duration_s, split_list, whole_number
from quadbench.errors import DeviceInUseError, UserError
from quadbench.observer import Observer
from quadbench.results.layout import Layout
from quadbench.spec import variable

if TYPE_CHECKING:
    from quadbench.devices import Address
    from quadbench.pipeline import RunOptions

_LOCAL_DEVICES = (
    "addresses: s25, s25@SERIAL, SERIAL, virtual:s25, hub:s25, local (default: $ANDROID_SERIAL, else local); or wishes"
    " for free phones: s25*2, chip=SM8750"
)
_MAX_RETRIES = 100
_PAUSE_S = 2.0
ResultT = TypeVar("ResultT")
_FARM_HELP = "devices of the farm: s25, s25@SERIAL, SERIAL, virtual:s25, s25*2, chip=SM8750; farm status lists them"


def add_devices(parser: argparse.ArgumentParser, *, of_farm: bool = False) -> None:
    """Add the option `--devices` to a command. `of_farm` makes their help text describe devices of a farm."""
    parser.add_argument("--devices", metavar="A,B", help=_FARM_HELP if of_farm else _LOCAL_DEVICES)


def listed_devices(devices: str | None) -> Sequence[str]:
    """Split the value of `--devices` into device names. Return [] for None. Raise UserError for a value without names."""
    listed = split_list(devices or "")
    if devices is not None and not listed:
        raise UserError(f"--devices '{devices}' has no device", hint="name one, or leave --devices out; see: quadbench devices")
    return listed


def addresses_of(devices: str | None, layout: Layout) -> "Sequence[Address]":
    """Return the addresses of the devices to run on. Wishes such as `s25*2` become free phones.

    Without --devices, use $ANDROID_SERIAL if set (empty list), else this machine.
    """
    from quadbench.devices.addresses import LocalAddress, parse_addresses
    from quadbench.devices.connections import SERIAL_VARIABLE
    from quadbench.devices.lab.wishes import addresses_for

    listed = parse_addresses(addresses_for(listed_devices(devices), layout))
    return listed or ([] if variable(SERIAL_VARIABLE) else [LocalAddress()])


def add_run_options(parser: argparse.ArgumentParser, *, later: str = "--resume measures the rest") -> None:
    """Add the options --retries, --budget and --keep-going to `parser`. Append the text `later` to the help of --budget."""
    parser.add_argument(
        "--retries",
        type=whole_number(0, _MAX_RETRIES),
        default=RETRIES,
        metavar="N",
        help=f"how often to wait for a lost device, up to {WAIT_S / 60:g} minutes each time (default: %(default)s)",
    )
    parser.add_argument(
        "--budget", type=duration_s, metavar="TIME", help=f"start only launches that end within this, such as 2h; {later}"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="leave out devices that are unavailable at the start, and name them at the end"
    )


def run_options_from(options: Options) -> "RunOptions":
    """Return a RunOptions with the command line's number of retries, time budget in seconds, and flag `--keep-going`."""
    from quadbench.pipeline import RunOptions

    return RunOptions(retries=options.retries, budget_s=options.budget, keep_going=options.keep_going)


def retry_when_free(
    act: Callable[[], ResultT], observer: Observer, *, waits: bool, pause: Callable[[float], None] = time.sleep
) -> ResultT:
    """Call `act` and return its result. On DeviceInUseError, call `act` again every 2 s if `waits`, else raise the error."""
    while True:
        try:
            return act()
        except DeviceInUseError as error:
            if not waits:
                raise
            observer.stage_step("wait", error.message)
            pause(_PAUSE_S)
