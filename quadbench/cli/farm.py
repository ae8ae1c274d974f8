"""The command `farm`: set up, check and operate a pool of devices; show its state and jobs; cancel jobs."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from quadbench.artifacts.safe_text import one_line
from quadbench.cli import run_source
from quadbench.cli.console import print_answer, print_error, print_json, print_rows, print_text
from quadbench.cli.options import Options, Subparsers, add_action, add_group, duration_s, split_list, whole_number
from quadbench.dispatch import attempt_client
from quadbench.errors import ArtifactError, QuadbenchError, UserError, requires_extra
from quadbench.farm.condor import Ad, pool_folder, this_pool
from quadbench.farm.dag import cancel_job, cancel_run, settle
from quadbench.farm.job import Job, JobState
from quadbench.farm.job_status import MOST_LISTED, job_counts, job_with_attempts, listed_jobs, open_farm_database
from quadbench.farm.pool_check import check_pool
from quadbench.farm.pool_setup import (
    CONFIGURATION,
    DRAIN_S,
    ENVIRONMENT_FILE,
    HOST_IDENTITY,
    LOOPBACK,
    PORT,
    SLOTS,
    PoolRole,
    PoolSettings,
    check_person,
    make_token,
    remaining_steps,
    require_fit_machine,
    roles_of,
    systemd_unit,
    write_pool,
)
from quadbench.farm.slots import Bay, Slot, capability_need, read_slots, why_not_started
from quadbench.farm.store.opening import STORE_VARIABLE, required_store
from quadbench.host import user_and_host
from quadbench.results.engine import DATABASE_VARIABLE, database_of, name_of, open_db, open_engine, open_for_reading, schema_of
from quadbench.spec import variable

MOST_SLOTS = 1000
_MOST_WAITING = 20  # waiting jobs that are listed with a reason
_MOST_DIGITS = 20  # of a job's number
_NONE = "–"


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "farm")
    _add_pool(actions)
    run_source.add(actions)
    add_action(actions, "status", run_status, "show jobs and why they wait, users' shares, devices and problems")
    jobs = add_action(actions, "jobs", run_jobs, "list the latest jobs, or those of a run")
    jobs.add_argument("run_id", nargs="?", metavar="RUN", help="the id of a run")
    logs = add_action(actions, "logs", run_logs, "show each attempt at a job, with its result and last log lines")
    logs.add_argument("job", type=int, metavar="JOB", help="the job's number")
    cancel = add_action(actions, "cancel", run_cancel, "cancel a job or all jobs of a run; running jobs end when they can")
    cancel.add_argument("what", metavar="JOB|RUN", help="a job's number or the id of a run")
    cancel.add_argument("--why", metavar="TEXT", help="the reason, shown with the job")


def _add_pool(actions: Subparsers) -> None:
    """Add the actions that set up, check and operate a pool, and those that HTCondor starts."""
    init = add_action(actions, "init", run_init, "set up this machine's part of a farm; say what is left to type")
    init.add_argument("--head", metavar="HOST", help="the machine that assigns the jobs (default: this one alone is the pool)")
    init.add_argument(
        "--role",
        action="append",
        choices=[role.value for role in PoolRole],
        help="what this machine does: assign jobs, run them, or only submit them; may be repeated "
        "(default: head and host; with --head, host)",
    )
    init.add_argument("--port", type=whole_number("port", 1, 65_535), default=PORT, help="HTCondor's port (default: %(default)s)")
    _add_host_options(init)
    host = add_action(actions, "host", run_host, "describe this host's devices to HTCondor, which starts this command")
    _add_host_options(host)
    token = add_action(actions, "token", run_token, "print a token by which a person or a host may use the pool; at the head")
    token.add_argument("name", nargs="?", metavar="NAME", help="the person's name, by which shares are counted")
    token.add_argument("--host", dest="for_host", action="store_true", help="make the token of a host's daemons instead")
    token.add_argument("--days", type=whole_number("days", 1, 3650), metavar="N", help="days until it expires (default: never)")
    add_action(actions, "check", run_check, "say what is wrong with the pool, and how to cure it")
    drain = add_action(actions, "drain", run_drain, "let a host take no more jobs; those that run end after their current launch")
    drain.add_argument("host", metavar="HOST", help="the host's name in farm status")
    drain.add_argument("--undo", action="store_true", help="let it take jobs again")
    attempt = add_action(actions, "attempt", run_attempt, "execute one attempt at a job; HTCondor starts this command")
    attempt.add_argument("order", metavar="ORDER", help="the file with the job's ad, beside that of its slot")
    unit = add_action(actions, "unit", run_unit, "print a systemd unit that runs this machine's part of the pool")
    unit.add_argument("--user", default="quadbench", help="the user that runs it (default: %(default)s)")
    unit.add_argument(
        "--drain-for", type=duration_s, default=float(DRAIN_S), metavar="TIME", help="time for running jobs to end (default: 1h)"
    )


def _add_host_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--devices", default="", metavar="A,B", help="devices in addition to attached phones: local, virtual:s25 (default: none)"
    )
    parser.add_argument(
        "--slots",
        type=whole_number("slots", 1, MOST_SLOTS),
        default=SLOTS,
        metavar="N",
        help="the most devices that this host can have, counting builds as one (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics",
        type=whole_number("port", 1, 65_535),
        metavar="PORT",
        help="serve metrics for Prometheus at this port, only to this host",
    )


def run_attempt(options: Options) -> int:
    return attempt_client.main([options.order])


def run_init(options: Options) -> int:
    roles, devices = roles_of(options.role or (), options.head), split_list(options.devices)
    _given_bays(devices)
    words = ("--devices", ",".join(devices)) if devices else ()
    metrics = ("--metrics", str(options.metrics)) if options.metrics else ()
    if (words or metrics) and PoolRole.HOST not in roles:
        raise UserError("only a host takes --devices and --metrics", hint="leave them out, or add --role host")
    settings = PoolSettings(
        roles=roles,
        head=options.head or LOOPBACK,
        port=options.port,
        slots=options.slots,
        results=options.layout.root.absolute(),
        words=(*words, *metrics),
    )
    if options.head and isinstance(database_of(options.layout), Path):
        raise UserError(
            f"${DATABASE_VARIABLE} is not set, and hosts cannot share the database of a results folder",
            hint=f"export {DATABASE_VARIABLE}=postgresql://USER@HOST/NAME; see docs/farm.md",
        )
    require_fit_machine()
    database, tables = _prepared(options)
    store = required_store().name if variable(STORE_VARIABLE) else None
    pool = write_pool(pool_folder(), settings)
    steps = remaining_steps(pool, settings)
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


def _given_bays(words: Sequence[str]) -> list[Bay]:
    from quadbench.devices.addresses import parse_address
    from quadbench.dispatch.offers import given_bay

    return [given_bay(parse_address(word)) for word in words]


def _prepared(options: Options) -> tuple[str, str]:
    """Create or migrate the tables of the farm's database. Return its name, and what became of its tables."""
    source = database_of(options.layout)
    before = schema_of(source)
    engine = open_engine(source)
    name = name_of(engine)
    engine.dispose()
    after = schema_of(source)
    is_old = before not in (None, after)
    return name, "were created" if before is None else f"were upgraded from schema {before} to {after}" if is_old else "exist"


def run_status(options: Options) -> int:
    with open_farm_database(options.layout) as engine:
        slots, shares, problem = _asked_pool(engine)
        counts, jobs = job_counts(engine), listed_jobs(engine).jobs
    waiting = [job for job in jobs if job.state is JobState.WAITING][:_MOST_WAITING]
    reasons = {job.id: "the pool cannot be asked" if problem else _why_waits(job, jobs, slots) for job in waiting}
    if options.json:
        told = {"slots": slots, "shares": shares, "waits": reasons, "problem": problem and str(problem)}
        print_json({"schema_version": 2, **asdict(counts), **told})
        return _fault_exit_code(counts.faults, problem)
    states = ", ".join(f"{counts.states.get(state.value, 0)} {state.value}" for state in JobState)
    oldest_s = counts.oldest_waits_s
    print_text(f"jobs: {states}{'' if oldest_s is None else f'; the oldest has waited for {oldest_s / 60:.0f} min'}")
    owners = [
        (owner, str(states.get(JobState.WAITING.value, 0)), str(states.get(JobState.RUNNING.value, 0)))
        for owner, states in counts.owners.items()
    ]
    _print(("owner", "waiting", "running"), owners)
    _print(("user of the pool", "slots in use", "used, hours", "priority (less is better)"), list(map(_share_words, shares)))
    _print(("job", "needs", "waits because"), [(str(job.id), job.needs, reasons[job.id]) for job in waiting])
    devices = [slot for slot in slots if slot.bay.address]
    columns = ("device", "profile", "serial", "host", "quadbench", "state")
    _print(columns, [_slot_words(slot) for slot in devices])
    rooms = [slot for slot in slots if not slot.bay.address]
    _print(("host that builds", "quadbench", "takes", "state"), list(map(_room_words, rooms)))
    if not devices and not problem:
        print_text("no devices; a host reports its devices some seconds after its start: quadbench farm check")
    return _fault_exit_code(counts.faults, problem)


def _asked_pool(engine: sa.Engine) -> tuple[list[Slot], list[Ad], QuadbenchError | None]:
    """Return the pool's slots and its users' shares, or none and the error if the pool cannot be asked. End jobs that it lost."""
    try:
        pool = this_pool()
        settle(engine, pool)
        return read_slots(pool), pool.owners(), None
    except QuadbenchError as error:
        return [], [], error


def run_jobs(options: Options) -> int:
    with open_db(options.layout, open_for_reading) as engine:
        read = listed_jobs(engine, options.run_id)
    if options.json:
        print_json(read.jobs)
    elif read.jobs:
        _print(("job", "run", "kind", "needs", "owner", "state", "attempt", "where", "reason"), list(map(_job_words, read.jobs)))
    elif not read.faults:
        print_text("no jobs")
    if len(read.jobs) == MOST_LISTED:
        print_error(f"only {MOST_LISTED} jobs are listed")
    return _fault_exit_code(list(read.faults.values()))


def run_logs(options: Options) -> int:
    with open_db(options.layout, open_for_reading) as engine:
        read, attempts = job_with_attempts(engine, options.job)
    if options.json:
        print_json({"job": read.jobs, "attempts": attempts})
        return _fault_exit_code(list(read.faults.values()))
    for job in read.jobs:
        print_text(f"job {job.id} of run {job.run_id} ({job.kind.value}, {job.needs}) of {job.owner} is {_state(job)}")
        if job.reason:
            print_text(one_line(job.reason))
        if job.state is JobState.WAITING and job.after:
            print_text(f"job {job.id} begins after {', '.join(f'job {needed}' for needed in job.after)}")
    rows = [
        (str(past.number), past.host, past.seat, _time(past.started_at), _time(past.ended_at), past.reason or _NONE)
        for past in attempts
    ]
    _print(("attempt", "host", "where", "from", "until", "reason"), rows)
    for past in attempts:
        if past.lines:
            print_text(f"attempt {past.number} logged:\n{past.lines}")
    return _fault_exit_code(list(read.faults.values()))


def run_cancel(options: Options) -> int:
    why = f"cancelled by {user_and_host()}" + (f": {options.why}" if options.why else "")
    is_job = options.what.isdecimal() and len(options.what) < _MOST_DIGITS
    pool = this_pool()
    with open_farm_database(options.layout) as engine:
        job = int(options.what) if is_job else 0
        jobs = [cancel_job(engine, pool, job, why)] if is_job else cancel_run(engine, pool, options.what, why)
    stopping = [str(job.id) for job in jobs if job.is_stopping and not job.state.is_end]
    cancelled = [str(job.id) for job in jobs if job.state is JobState.CANCELLED]  # includes jobs that depend on a cancelled one
    if options.json:
        print_json({"cancelled": len(cancelled), "stopping": len(stopping)})
    elif is_job and not cancelled and not stopping:
        print_text(f"job {jobs[0].id} has ended already: it is {jobs[0].state.value}")
    else:
        parts = [
            f"job {ids[0]} is {what}" if len(ids) == 1 else f"jobs {', '.join(ids)} are {what}"
            for ids, what in ((cancelled, "cancelled"), (stopping, "stopping"))
            if ids
        ]
        print_text("; ".join(parts) or "there is nothing left to cancel")
    return 0


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
        _print(("what", "state"), [(one.what, one.state) for one in findings if not one.problem])
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
        check_person(options.name)
    name = HOST_IDENTITY if options.for_host else options.name
    token = make_token(this_pool(), name, options.days).strip()
    print_answer(options, {"name": name, "token": token}, token)
    return 0


def run_unit(options: Options) -> int:
    text = systemd_unit(options.user, int(options.drain_for))
    above = (
        f"# For /etc/systemd/system/quadbench-farm.service. {ENVIRONMENT_FILE} sets {DATABASE_VARIABLE} and {STORE_VARIABLE}.\n"
        f"# User {options.user} has the home {CONFIGURATION.parents[2]}. Before the first start: sudo -u {options.user} -H "
        f"quadbench farm init --results {CONFIGURATION.parents[2]}/results"
    )
    print_answer(options, {"unit": text, "environment_file": str(ENVIRONMENT_FILE)}, f"{above}\n{text}")
    return 0


def run_host(options: Options) -> int:
    from quadbench.dispatch.offers import HostBays, capabilities, describe_host

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(message)s")
    given = _given_bays(split_list(options.devices))
    with open_db(options.layout) as engine:
        if options.metrics is not None:
            with requires_extra("farm"):
                from quadbench.dispatch.metrics import FarmMetrics, serve
            serve(options.metrics, FarmMetrics(engine))
        host = HostBays(given=given, capabilities=capabilities(), engine=engine)
        describe_host(host, options.slots, version("quadbench"))
    return 0


def _fault_exit_code(faults: Sequence[str], problem: QuadbenchError | None = None) -> int:
    for fault in (str(problem), *faults) if problem else faults:
        print_error(fault)
    return ArtifactError.exit_code if faults else problem.exit_code if problem else 0


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table unless it is empty."""
    if rows:
        print_rows(columns, rows, whole=("job", "run", "device", "attempt"))


def _why_waits(job: Job, jobs: Sequence[Job], slots: Sequence[Slot]) -> str:
    """Return why a waiting job has not started: jobs that it needs, a failed attempt, or what the fitting slots are doing."""
    waits = why_not_started(job, jobs, slots)
    return f"attempt {job.attempt} failed ({job.reason}); then {waits}" if job.reason else waits


def _share_words(ad: Ad) -> Sequence[str]:
    used, hours, priority = (ad.get(name) for name in ("ResourcesUsed", "WeightedAccumulatedUsage", "Priority"))
    numbers = (f"{value:.{places}f}" if isinstance(value, int | float) else _NONE for value, places in ((used, 0), (priority, 0)))
    in_use, rank = numbers
    return one_line(str(ad.get("Name"))), in_use, f"{hours / 3600:.1f}" if isinstance(hours, int | float) else _NONE, rank


def _slot_words(slot: Slot) -> Sequence[str]:
    labels = slot.bay.labels
    return (slot.bay.name, *(labels.get(name, _NONE) for name in ("profile", "serial")), slot.host, slot.version, _state_of(slot))


def _room_words(slot: Slot) -> Sequence[str]:
    takes = sorted(need.removeprefix(capability_need("")) for need in slot.bay.serves)
    return slot.host, slot.version, ", ".join(takes), _state_of(slot)


def _state_of(slot: Slot) -> str:
    return slot.why_not_for("") or "free"


def _job_words(job: Job) -> Sequence[str]:
    attempt = f"{job.attempt} of {job.most_attempts}"
    where, reason = job.seat or _NONE, job.reason or ""
    return str(job.id), job.run_id, job.kind.value, job.needs, job.owner, _state(job), attempt, where, reason


def _state(job: Job) -> str:
    if job.state is JobState.RUNNING and job.is_stopping:
        return "asked to stop"
    return job.state.value


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else _NONE
