"""The command `devices`: list phones and other devices, put phones into or out of quarantine, and describe a phone."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import (
    empty_table,
    print_answer,
    print_broken_profiles,
    print_error,
    print_note,
    print_rows,
    stdout_console,
)
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.devices import list_devices
from quadbench.devices.addresses import AttachedAddress, parse_address
from quadbench.devices.connections import DeviceRow, describe_attached
from quadbench.devices.lab.farm_file import expected_phones
from quadbench.devices.lab.health import quarantined, released
from quadbench.devices.lab.inventory import Inventory
from quadbench.devices.lab.overview import FarmPhone, overview, phone_named
from quadbench.errors import DeviceNotFoundError, UserError
from quadbench.results.engine import open_db

_UNKNOWN = "–"


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "devices", run)
    parser.add_argument(
        "action",
        nargs="?",
        choices=["quarantine", "release", "forget", "describe"],
        help="keep runs away from a phone, allow them again, remove a phone from the list, or print a profile of a phone",
    )
    parser.add_argument("device", nargs="?", help="the phone's name, address or serial")
    parser.add_argument("--why", metavar="TEXT", help="the reason of a quarantine")


def run(options: Options) -> int:
    if options.why is not None and options.action != "quarantine":
        raise UserError(
            "--why is only for the action quarantine", hint="for example: quadbench devices quarantine PHONE --why TEXT"
        )
    if options.action == "describe":
        return _describe(options)
    rows, expected = list_devices(), expected_phones()
    phones = overview(rows, expected, options.layout)
    if options.action:
        if options.device is None:
            raise UserError(f"quadbench devices {options.action} needs a phone", hint="name a phone; see: quadbench devices")
        return (_forget if options.action == "forget" else _change)(options, phone_named(options.device, phones))
    others = [row for row in rows if not row.is_phone]
    print_answer(options, [*map(_phone_json, phones), *others], lambda: _print(phones, others))
    print_broken_profiles()
    missing = [phone for phone in phones if phone.is_missing]
    for phone in missing:
        seen = phone.last_seen and f"{phone.seen.state}, last seen {_time_text(phone.last_seen)} at {phone.seen.host}"
        print_error(f"expected phone '{phone.name}' (serial {phone.seen.serial}) is not ready: {seen or 'it was never seen'}")
    return DeviceNotFoundError.exit_code if missing else 0


def _describe(options: Options) -> int:
    """Print the YAML text of a device profile of an attached phone. Say on stderr what to do with it."""
    if options.device is None:
        raise UserError("quadbench devices describe needs a phone's serial", hint="see: quadbench devices")
    address = parse_address(options.device)
    if not isinstance(address, AttachedAddress):
        raise UserError(f"'{address}' is no attached phone", hint="name the serial of one; see: quadbench devices")
    serial = address.serial or address.profile
    text, names = describe_attached(serial)
    print_answer(options, {"profile": text, "matches": names}, text)
    if names:
        print_note(f"'{serial}' already has a profile, {names[0]}. A second one that matches it has to be named in each address.")
    print_note(f"Read it, keep it as mine.yaml, and use the phone with: --devices ./mine.yaml@{serial}")
    return 0


def _change(options: Options, phone: FarmPhone) -> int:
    """Put a phone into quarantine or release it from quarantine, and print its health."""
    with open_db(options.layout) as engine:
        inventory = Inventory(engine)
        if phone.is_here:
            inventory.note_seen([phone.seen])
        why = one_line(options.why or "by hand")
        condition = inventory.change(phone.seen.device, released if options.action == "release" else lambda _: quarantined(why))
    health = ": ".join(filter(None, (condition.health.value, condition.reason)))
    print_answer(options, {"name": phone.name, **asdict(condition)}, f"{phone.name}: {health}")
    return 0


def _forget(options: Options, phone: FarmPhone) -> int:
    """Remove a phone from the phone inventory. Raise UserError if the phone is attached to this machine."""
    if phone.is_here:
        raise UserError(f"'{phone.name}' is attached here and would be listed again", hint="unplug it first")
    with open_db(options.layout) as engine:
        Inventory(engine).forget(phone.seen.device)
    print_answer(options, {"forgotten": phone.name}, f"{phone.name}: forgotten")
    return 0


def _print(phones: Sequence[FarmPhone], others: Sequence[DeviceRow]) -> None:
    if phones:
        table = empty_table("name, serial", "phone", "state", "health", "lease", whole=("name, serial", "phone"))
        for phone in phones:
            seen, claim = phone.seen, phone.claim
            android = f"Android {seen.android_release}" if seen.android_release else ""
            where = (seen.host or "", f"seen {_time_text(phone.last_seen)}" if phone.last_seen else "")
            cells = (
                (phone.name, seen.serial, *(() if seen.profile else ("no profile matches",))),
                tuple(filter(None, (seen.model, seen.chip, android, seen.abi))) or (_UNKNOWN,),
                filter(None, (seen.state, *where)),
                filter(None, (phone.condition.health.value, phone.condition.reason)),
                (claim.owner, f"until {_time_text(claim.until)}", claim.purpose) if claim else ("free",),
            )
            table.add_row(*("\n".join(map(one_line, lines)) for lines in cells))
        stdout_console().print(table)
    rows = [(row.address, row.serial, row.state, row.model) for row in others]
    print_rows(("address", "serial", "state", "model"), rows, whole=("address",))


def _time_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _phone_json(phone: FarmPhone) -> dict[str, Any]:
    claim = phone.claim
    return {
        **asdict(phone.seen),
        "name": phone.name,
        "labels": phone.labels,
        "health": phone.condition.health.value,
        "reason": phone.condition.reason,
        "lease": claim and {"owner": claim.owner, "purpose": claim.purpose, "until": claim.until.isoformat()},
        "last_seen": phone.last_seen and phone.last_seen.isoformat(),
        "is_expected": phone.is_expected,
    }
