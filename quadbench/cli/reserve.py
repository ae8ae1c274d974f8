"""The command `reserve`: reserve a device for one person for some time."""

from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import print_answer
from quadbench.cli.options import Options, Subparsers, add_command, duration_s
from quadbench.devices import list_devices
from quadbench.devices.lab.farm_file import expected_phones
from quadbench.devices.lab.leases import Leases
from quadbench.devices.lab.overview import device_named, overview
from quadbench.host import user_and_host
from quadbench.results.engine import open_db


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "reserve", run)
    parser.add_argument("device", help="a phone by its name, address or serial; local; virtual:s25")
    parser.add_argument(
        "--for", type=duration_s, dest="for_s", default="2h", metavar="TIME", help="how long: 30m, 2h, 7d (default: 2h)"
    )
    parser.add_argument("--why", metavar="TEXT", default="work by hand", help="the reason that others see")


def run(options: Options) -> int:
    device = device_named(options.device, overview(list_devices(), expected_phones(), options.layout))
    with open_db(options.layout) as engine:
        claim = Leases(engine).reserve(device, user_and_host(), one_line(options.why), options.for_s)
    answer = {"device": device, "owner": claim.owner, "purpose": claim.purpose, "until": claim.until.isoformat()}
    print_answer(options, answer, f"{device} is reserved for {claim.owner} until {claim.until:%Y-%m-%d %H:%M} UTC")
    return 0
