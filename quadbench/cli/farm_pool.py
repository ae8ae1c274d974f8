"""Actions of `farm` that set up, check and operate a pool, and those that HTCondor starts."""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench.cli.console import print_answer, print_error, print_json, print_rows, print_text
from quadbench.cli.options import Options, Subparsers, add_action, split_list, whole_number
from quadbench.errors import UserError
from quadbench.farm import pool_setup
from quadbench.farm.condor import HOST_IDENTITY, pool_folder, this_pool
from quadbench.farm.pool_check import check_pool
from quadbench.farm.store.opening import STORE_VARIABLE, required_store
from quadbench.results.engine import DATABASE_VARIABLE, database_of, has_tables, name_of, open_db, open_engine
from quadbench.spec import variable

if TYPE_CHECKING:
    from quadbench.farm.slots import Bay

MOST_SLOTS = 1000


def add(actions: Subparsers) -> None:
    """Add the actions that set up, check and operate a pool, and those that HTCondor starts."""
    init = add_action(actions, "init", run_init, "set up this machine's part of a farm; say what is left to type")
    init.add_argument("--head", metavar="HOST", help="the machine that assigns the jobs (default: this one alone is the pool)")
    init.add_argument(
        "--role",
        action="append",
        choices=[role.value for role in pool_setup.PoolRole],
        help="what this machine does: assign jobs, run them, or only submit them; may be repeated "
        "(default: head and host; with --head, host)",
    )
    init.add_argument(
        "--port", type=whole_number(1, 65_535), default=pool_setup.PORT, help="HTCondor's port (default: %(default)s)"
    )
    _add_host_options(init)
    host = add_action(actions, "host", run_host, "describe this host's devices to HTCondor, which starts this command")
    _add_host_options(host)
    token = add_action(actions, "token", run_token, "print a token by which a person or a host may use the pool; at the head")
    token.add_argument("name", nargs="?", metavar="NAME", help="the person's name, by which shares are counted")
    token.add_argument("--host", dest="for_host", action="store_true", help="make the token of a host's daemons instead")
    token.add_argument("--days", type=whole_number(1, 3650), metavar="N", help="days until it expires (default: never)")
    add_action(actions, "check", run_check, "say what is wrong with the pool, and how to cure it")
    drain = add_action(actions, "drain", run_drain, "let a host take no more jobs; those that run end after their current launch")
    drain.add_argument("host", metavar="HOST", help="the host's name in farm status")
    drain.add_argument("--undo", action="store_true", help="let it take jobs again")
    attempt = add_action(actions, "attempt", run_attempt, "execute one attempt at a job; HTCondor starts this command")
    attempt.add_argument("order", metavar="ORDER", help="the file with the job's ad, beside that of its slot")
    unit = add_action(actions, "unit", run_unit, "print a systemd unit that runs this machine's part of the pool")
    unit.add_argument("--user", default="quadbench", help="the user that runs it (default: %(default)s)")


def _add_host_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--devices", default="", metavar="A,B", help="devices in addition to attached phones: local, virtual:s25 (default: none)"
    )
    parser.add_argument(
        "--slots",
        type=whole_number(1, MOST_SLOTS),
        default=pool_setup.SLOTS,
        metavar="N",
        help="the most devices that this host can have, counting builds as one (default: %(default)s)",
    )


def run_attempt(options: Options) -> int:
    from quadbench.dispatch.attempt import make_attempt

    return make_attempt(options.order)


def run_init(options: Options) -> int:
    roles, devices = pool_setup.roles_of(options.role or (), options.head), split_list(options.devices)
    _given_bays(devices)
    words = ("--devices", ",".join(devices)) if devices else ()
    if words and pool_setup.PoolRole.HOST not in roles:
        raise UserError("only a host takes --devices", hint="leave it out, or add --role host")
    settings = pool_setup.PoolSettings(
        roles=roles,
        head=options.head or pool_setup.LOOPBACK,
        port=options.port,
        slots=options.slots,
        results=options.layout.root.absolute(),
        words=words,
    )
    if options.head and isinstance(database_of(options.layout), Path):
        raise UserError(
            f"${DATABASE_VARIABLE} is not set, and hosts cannot share the database of a results folder",
            hint=f"export {DATABASE_VARIABLE}=postgresql://USER@HOST/NAME; see docs/farm.md",
        )
    pool_setup.require_fit_machine()
    database, tables = _prepared(options)
    store = required_store().name if variable(STORE_VARIABLE) else None
    pool = pool_setup.write_pool(pool_folder(), settings)
    steps = pool_setup.remaining_steps(pool, settings)
    if options.json:
        configuration = str(pool.configuration)
        print_json({"configuration": configuration, "roles": roles, "database": database, "store": store, "steps": steps})
        return 0
    print_text(f"configuration {pool.configuration} is written: this machine is {' and '.join(roles)}")
    print_text(f"database {database} is reachable: its tables {tables}")
    print_text(
        f"store {store} is reachable" if store else f"no store yet: export {STORE_VARIABLE}=/a/folder, or s3://BUCKET/PREFIX"
    )
    print_text("what is left to do:\n" + "\n".join(f"  {step}" for step in steps))
    return 0


def _given_bays(words: Sequence[str]) -> "list[Bay]":
    from quadbench.devices.addresses import parse_addresses, refuse_twice
    from quadbench.dispatch.offers import given_bay

    bays = [given_bay(address) for address in parse_addresses(words)]
    taken: dict[str, str] = {}
    for bay in bays:
        refuse_twice(bay.address, bay.name, taken)
        taken[bay.name] = bay.address
    return bays


def _prepared(options: Options) -> tuple[str, str]:
    """Create the tables of the farm's database if missing. Return its name, and what became of its tables."""
    source = database_of(options.layout)
    outcome = "exist" if has_tables(source) else "were created"
    engine = open_engine(source)
    engine.dispose()
    return name_of(engine), outcome


def run_drain(options: Options) -> int:
    this_pool().drain(options.host, undo=options.undo)
    what = "takes jobs again" if options.undo else "takes no more jobs; those that run end after their current launch"
    print_answer(options, {"host": options.host, "draining": not options.undo}, f"{options.host} {what}")
    return 0


def run_check(options: Options) -> int:
    findings = list(check_pool(version("quadbench")))
    if options.json:
        print_json({"schema_version": 1, "findings": findings})
    else:
        if rows := [(one.what, one.state) for one in findings if not one.problem]:
            print_rows(("what", "state"), rows)
        for one in findings:
            if one.problem:
                print_error(f"{one.what}: {one.problem}. Cure: {one.cure}")
    return UserError.exit_code if any(one.problem for one in findings) else 0


def run_token(options: Options) -> int:
    if (options.name is None) == (not options.for_host):
        raise UserError(
            "a token is for a person or for a host", hint="quadbench farm token NAME, or: quadbench farm token --host"
        )
    if not options.for_host:
        pool_setup.check_person(options.name)
    name = HOST_IDENTITY if options.for_host else options.name
    token = pool_setup.make_token(this_pool(), name, options.days).strip()
    print_answer(options, {"name": name, "token": token}, token)
    return 0


def run_unit(options: Options) -> int:
    text = pool_setup.systemd_unit(options.user)
    environment, home = pool_setup.ENVIRONMENT_FILE, pool_setup.CONFIGURATION.parents[2]
    above = (
        f"# For /etc/systemd/system/quadbench-farm.service. {environment} sets {DATABASE_VARIABLE} and {STORE_VARIABLE}.\n"
        f"# User {options.user} has the home {home}. Before the first start: sudo -u {options.user} -H "
        f"quadbench farm init --results {home}/results"
    )
    print_answer(options, {"unit": text, "environment_file": str(environment)}, f"{above}\n{text}")
    return 0


def run_host(options: Options) -> int:
    from quadbench.dispatch.offers import HostBays, capabilities, describe_host

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s")
    given = _given_bays(split_list(options.devices))
    with open_db(options.layout) as engine:
        host = HostBays(given=given, capabilities=capabilities(), engine=engine)
        describe_host(host, options.slots, version("quadbench"))
    return 0
