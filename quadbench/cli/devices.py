"""The command `devices`: list phones and other devices, put phones into or out of quarantine, describe and record them."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from quadbench.artifacts import MIB
from quadbench.artifacts.safe_text import one_line
from quadbench.cli.console import (
    RunConsole,
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
from quadbench.devices.recording import ENDING, Recording, peaks_of, read_recording, write_recording
from quadbench.doctor.recorder import record_probe, record_run
from quadbench.errors import DeviceNotFoundError, UserError
from quadbench.results.engine import open_db
from quadbench.target.profile import VIRTUAL_PREFIX

_UNKNOWN = "–"


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "devices", run)
    parser.add_argument(
        "action",
        nargs="?",
        choices=["quarantine", "release", "forget", "describe", "record", "recorded"],
        help="keep runs away from a phone, allow them again, remove a phone from the list, print a profile of a phone, record a "
        "session with a device, or print what a recording has",
    )
    parser.add_argument("device", nargs="?", help="the phone's name, address or serial; or a recording's file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of the recording [PROFILE-TIME.json.gz]")
    parser.add_argument("--run", dest="run_id", metavar="RUN", help="record the events of this run, not those of a new probe")
    parser.add_argument("--why", metavar="TEXT", help="the reason of a quarantine")


def run(options: Options) -> int:
    if options.why is not None and options.action != "quarantine":
        raise UserError(
            "--why is only for the action quarantine", hint="for example: quadbench devices quarantine PHONE --why TEXT"
        )
    if (options.out or options.run_id) and options.action != "record":
        raise UserError("--out and --run are only for the action record", hint="for example: quadbench devices record s25")
    match options.action:
        case "describe":
            return _describe(options)
        case "record":
            return _record(options)
        case "recorded":
            path = Path(_named(options, "file"))
            return _print_recording(options, read_recording(path), path)
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
    address = parse_address(_named(options, "phone's serial"))
    if not isinstance(address, AttachedAddress):
        raise UserError(f"'{address}' is no attached phone", hint="name the serial of one; see: quadbench devices")
    serial = address.serial or address.profile
    text, names = describe_attached(serial)
    print_answer(options, {"profile": text, "matches": names}, text)
    if names:
        print_note(f"'{serial}' already has a profile, {names[0]}. A second one that matches it has to be named in each address.")
    print_note(f"Read it, keep it as mine.yaml, and use the phone with: --devices ./mine.yaml@{serial}")
    return 0


def _record(options: Options) -> int:
    """Record a session with a device in one archive. Print what the archive has."""
    address = parse_address(_named(options, "device's address"))
    out = options.out
    if out is not None and not out.name.endswith(ENDING):
        raise UserError(f"--out '{out}' does not end with {ENDING}", hint=f"for example: --out phone{ENDING}")
    if out is not None and out.exists():
        raise UserError(f"--out '{out}' exists already", hint="name another file")
    if options.run_id:
        recording = record_run(address, options.run_id, layout=options.layout)
    else:
        with RunConsole() as observer:
            recording = record_probe(address, layout=options.layout, observer=observer)
    path = out or Path(f"{recording.profile}-{re.sub(r'[^0-9TZ]', '', recording.recorded_at)}{ENDING}")
    write_recording(recording, path)
    result = _print_recording(options, recording, path)
    print_note(f"Read it before you hand it on: zcat {shlex.quote(str(path))}")
    print_note(f"A virtual phone repeats it: --devices '{VIRTUAL_PREFIX}{recording.profile}?scenario={path}'")
    return result


def _print_recording(options: Options, recording: Recording, path: Path) -> int:
    """Print what a recording has: its device, the launches with their status, and each process's peak memory."""
    peaks = peaks_of(recording)
    document = {
        "file": str(path),
        **recording.model_dump(mode="json", include={"family", "profile", "recorded_at", "quadbench", "removed"}),
        "properties": len(recording.properties),
        "launches": [launch.model_dump(mode="json", exclude={"events"}) for launch in recording.launches],
        "peaks": {str(process): asdict(peak) for process, peak in peaks.items()},
    }

    def show() -> None:
        head = (
            f"{path}: {recording.profile} ({recording.family}), {recording.recorded_at}, {len(recording.properties)} properties"
        )
        removed = ", ".join(f"{count} {kind}" for kind, count in sorted(recording.removed.items())) or "nothing"
        rows = [(one.name, one.status, str(one.events.count("\n")), one.reason or "") for one in recording.launches]
        memory = [(str(process), _megabytes(p.resident_bytes), _megabytes(p.dma_buf_bytes)) for process, p in peaks.items()]
        memory = memory or [("none was seen", _megabytes(None), _megabytes(None))]
        stdout_console().print(one_line(head), highlight=False, markup=False)
        stdout_console().print(one_line(f"removed: {removed}"), highlight=False, markup=False)
        print_rows(("launch", "status", "events", "reason"), rows)
        print_rows(("process", "peak of resident memory, MB", "peak of DMA buffers, MB"), memory)

    print_answer(options, document, show)
    return 0


def _megabytes(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / MIB:.1f}"


def _named(options: Options, what: str) -> str:
    """Return the argument after the action. Raise UserError that names `what` is missing."""
    if options.device is None:
        raise UserError(f"quadbench devices {options.action} needs a {what}", hint="see: quadbench devices")
    return str(options.device)


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
