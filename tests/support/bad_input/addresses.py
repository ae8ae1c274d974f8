"""Addresses: what is given to --devices, -s and --results -> cases, through the command line itself."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from quadbench.cli.device_options import addresses_of
from quadbench.devices.addresses import Address, AttachedAddress, HostedAddress, choose_phone
from quadbench.devices.connections import connect, hosted_phone
from quadbench.results.layout import Layout
from quadbench.target.profile import load_profiles
from support.bad_input.case import Case

_WRONG = (
    "virtual:", "virtual:?", "virtual:s25?data_mb=", "virtual:s25?data_mb=0", "virtual:s25?data_mb=-1",
    "virtual:s25?data_mb=1e9", "virtual:s25?data_mb=65537", "virtual:s25?data_mb=99999999999999999999", "virtual:s25?data_mb=٣",
    "virtual:s25?data_mb=1_0", "virtual:s25?data_mb= 1", "virtual:s25?target=", "virtual:s25?target=none", "virtual:s25?x=1",
    "virtual:s25?target=qnn&target=x", "virtual:s25&data_mb=1", "virtual:nothing", "virtual:../s25", "virtual:../../etc/passwd",
    "virtual:/dev/zero", "virtual:/etc/passwd.yaml", "virtual:a/b", "virtual:S25", "virtual:s25@X", "virtual:local", "virtual:\0",
    "virtual:\x1b[31m", "virtual:[/red]", "hub:", "hub:nothing", "hub:../x", "hub:/etc", "hub:\0", "hub:s25,hub:s25",
    "local,local", ",", " ", "", "local@x", "local:5555", "@", "@x", "s25@", "@@", "nothing", "s27", "S25", "s25@nothing",
    "./mine.yaml", "/dev/zero.yaml", "x" * 70_000, "x" * 1024, "a\0b", "\n", "\x1b[2J", "[bold]", "-", "--", "$(id)", "`id`",
    "; rm -rf /", "a b", "ünïcode", "\udc80", "%s%n", "{0}", "s25;s25", "local local", "virtual:s25,virtual:s25",
    "http://127.0.0.1", "127.0.0.1:5555", "::1", "emulator-5554", "virtual:s25#x", "VIRTUAL:s25", "Local", "local?x=1",
)  # fmt: skip


def address_cases(dice: random.Random) -> Iterator[Case]:
    """Yield cases of addresses; none of them means a device, and no adb server is asked."""
    for text in _WRONG:
        yield Case(name=f"--devices {text[:40]!r}", act=partial(_connect, text))
    alphabet = "abs25:@?=&,./\\-_ \0\x1b[]virtualhublocal"
    for number in range(40):
        text = "".join(dice.choice(alphabet) for _ in range(dice.randrange(1, 40)))
        yield Case(name=f"--devices {number} {text!r}", act=partial(_connect, text), may_pass=text.strip() == "local")


def _connect(text: str, folder: Path) -> None:
    _open(addresses_of(text, Layout(folder)), folder)


def _open(addresses: Sequence[Address], folder: Path) -> None:
    """Open devices as a run does; attached phones are looked for among none."""
    profiles = load_profiles()
    for address in addresses:
        if isinstance(address, HostedAddress):
            hosted_phone(address)
        if isinstance(address, AttachedAddress):
            choose_phone(address, [], profiles, None)
    own = [address for address in addresses if not isinstance(address, HostedAddress)]
    with connect(own, layout=Layout(folder / "results"), profiles=profiles):
        pass
