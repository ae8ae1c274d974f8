"""The command `release`: end the reservation of a device."""

from quadbench.cli.console import print_answer
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.devices import list_devices
from quadbench.devices.lab.farm_file import expected_phones
from quadbench.devices.lab.leases import Leases
from quadbench.devices.lab.overview import device_named, overview
from quadbench.host import user_and_host
from quadbench.results.engine import open_db


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "release", run)
    parser.add_argument("device", help="a device as `quadbench reserve` takes it")
    parser.add_argument("--force", action="store_true", help="take it from any other person, and from a running job")


def run(options: Options) -> int:
    device = device_named(options.device, overview(list_devices(), expected_phones(), options.layout))
    with open_db(options.layout) as engine:
        Leases(engine).release(device, user_and_host(), force=options.force)
    print_answer(options, {"device": device}, f"{device} is released")
    return 0
