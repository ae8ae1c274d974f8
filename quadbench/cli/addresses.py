"""Addresses: `--devices` and `-s` on the command line -> the addresses that a command runs on."""

import argparse
from collections.abc import Sequence

from quadbench.cli.options import split_list
from quadbench.devices import SERIAL_VARIABLE
from quadbench.errors import UserError
from quadbench.farm.wishes import addresses_for
from quadbench.results.layout import Layout
from quadbench.spec import variable
from quadbench.target.profile import LOCAL_NAME

_HERE = (
    "addresses: s25, s25@SERIAL, SERIAL, virtual:s25, hub:s25, local (default: $ANDROID_SERIAL, else local); or wishes"
    " for free phones: s25*2, chip=SM8750"
)
_OF_FARM = "devices of the farm: s25, s25@SERIAL, SERIAL, virtual:s25, s25*2, chip=SM8750; farm status lists them"


def add_devices(parser: argparse.ArgumentParser, *, of_farm: bool = False) -> None:
    """Add `--devices` and `-s`, which `chosen_devices` takes; for devices `of_farm` alone, `device_words` does."""
    parser.add_argument("--devices", metavar="A,B", help=_OF_FARM if of_farm else _HERE)
    parser.add_argument("-s", "--serial", metavar="SERIAL", help="the phone with this serial, as adb's option of that name")


def listed_devices(devices: str | None) -> Sequence[str]:
    """Return the addresses that `--devices` names; none if it was not given.

    Raises:
        UserError: it was given and names nothing: an empty variable of a script must not mean another device.
    """
    listed = split_list(devices or "")
    if devices is not None and not listed:
        raise UserError(f"--devices '{devices}' names no device", hint="name one, or leave --devices out; see: quadbench devices")
    return listed


def chosen_devices(devices: str | None, serial: str | None, layout: Layout) -> Sequence[str]:
    """Return the addresses to run on. `-s` picks the phone for one address, or is the address; wishes are given free phones.

    With neither, an empty list stands for $ANDROID_SERIAL if it is set; else this machine is meant.

    Raises:
        UserError: `-s` stands beside several addresses, or `--devices` names nothing.
        DeviceNotFoundError: too few phones are free.
    """
    listed = _picked(addresses_for(listed_devices(devices), layout), serial)
    return listed or ([] if variable(SERIAL_VARIABLE) else [LOCAL_NAME])


def device_words(devices: str | None, serial: str | None) -> Sequence[str]:
    """Return the words that ask a farm for devices; none where none were given.

    Raises:
        UserError: `-s` stands beside several words, or `--devices` names nothing.
    """
    return _picked(listed_devices(devices), serial)


def _picked(listed: Sequence[str], serial: str | None) -> Sequence[str]:
    """Return what is listed, of which `-s` picks the phone for one, or is it."""
    if not serial:
        return listed
    if not listed:
        return [serial]
    name, *options = listed[0].partition("?")
    picked = f"{name}@{serial}{''.join(options)}"
    if len(listed) > 1:
        raise UserError(f"-s {serial} picks one phone, but --devices names {len(listed)}", hint=f"write {picked}")
    return [picked]
