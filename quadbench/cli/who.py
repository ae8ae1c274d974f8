"""The command `who`: list leases and reservations of devices, with owner, purpose and end."""

from quadbench.cli.console import print_json, print_rows, print_text
from quadbench.cli.options import Options, Subparsers, add_command
from quadbench.devices.lab.leases import Claims, Leases
from quadbench.results.engine import database_exists, database_of, open_db, open_for_reading


def add(commands: Subparsers) -> None:
    add_command(commands, "who", run)


def run(options: Options) -> int:
    standing: dict[str, Claims] = {}
    if database_exists(database_of(options.layout)):
        with open_db(options.layout, open_for_reading) as engine:
            standing = Leases(engine).standing()
    rows = [
        (device, claim.owner, kind, claim.purpose, claim.until)
        for device, claims in standing.items()
        for kind, claim in (("job", claims.job), ("reservation", claims.reservation))
        if claim
    ]
    columns = ("device", "owner", "kind", "purpose", "until")
    if options.json:
        print_json([dict(zip(columns, (*words, until.isoformat()), strict=True)) for *words, until in rows])
    elif rows:
        print_rows(columns, [(*words, f"{until:%Y-%m-%d %H:%M} UTC") for *words, until in rows])
    else:
        print_text("no device is in use or reserved")
    return 0
