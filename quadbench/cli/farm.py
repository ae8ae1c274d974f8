"""The command `farm`: set up a farm, show its state and jobs, cancel jobs, and run a worker on this host."""

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from quadbench.artifacts.safe_text import one_line
from quadbench.cli import run_source
from quadbench.cli.console import print_answer, print_error, print_json, print_rows, print_text
from quadbench.cli.options import Options, Subparsers, add_action, add_group, duration_s, split_list, whole_number
from quadbench.dispatch import attempt_client
from quadbench.errors import ArtifactError, UserError, quote, requires_extra
from quadbench.farm.job import Job, JobState
from quadbench.farm.job_status import MOST_LISTED, job_with_attempts, listed_jobs, queue_status
from quadbench.farm.jobs import JobQueue
from quadbench.farm.store.opening import STORE_VARIABLE, required_store, store_of
from quadbench.farm.unit import DRAIN_S, ENVIRONMENT_FILE, systemd_unit
from quadbench.farm.workers import KnownWorker, NewWorker, Workers
from quadbench.host import host_name, user_and_host
from quadbench.results.engine import DATABASE_VARIABLE, database_of, name_of, open_db, open_engine, open_for_reading, schema_of

if TYPE_CHECKING:
    from quadbench.dispatch.worker import Worker

_NONE = "–"
_MAX_NAME_LENGTH = 100

log = logging.getLogger(__name__)


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "farm")
    worker = add_action(actions, "worker", run, "run the farm's jobs on this host and its phones; SIGTERM drains the worker")
    worker.add_argument("--name", type=_worker_name, help="the worker's name (default: the host's name)")
    worker.add_argument(
        "--devices", default="", metavar="A,B", help="devices in addition to attached phones: local, virtual:s25 (default: none)"
    )
    worker.add_argument(
        "--metrics",
        type=whole_number("port", 1, 65_535),
        metavar="PORT",
        help="serve metrics for Prometheus at this port, only to this host",
    )
    worker.add_argument("--log-json", action="store_true", help="log JSON, one object per line")
    attempt = add_action(actions, "attempt", run_attempt, "execute one attempt at a job; workers start this command")
    attempt.add_argument("order", metavar="ORDER", help="the worker's file that describes the job")
    run_source.add(actions)
    add_action(actions, "init", run_init, "test the database and the store of a farm, and create the tables")
    add_action(actions, "status", run_status, "show waiting and running jobs, workers, devices and problems")
    jobs = add_action(actions, "jobs", run_jobs, "list the latest jobs, or those of a run")
    jobs.add_argument("run_id", nargs="?", metavar="RUN", help="the id of a run")
    logs = add_action(actions, "logs", run_logs, "show each attempt at a job, with its result and last log lines")
    logs.add_argument("job", type=int, metavar="JOB", help="the job's number")
    cancel = add_action(actions, "cancel", run_cancel, "cancel a job or all jobs of a run; running jobs end when they can")
    cancel.add_argument("what", metavar="JOB|RUN", help="a job's number or the id of a run")
    cancel.add_argument("--why", metavar="TEXT", help="the reason, shown with the job")
    unit = add_action(actions, "unit", run_unit, "print a systemd unit that keeps a worker running on this host")
    unit.add_argument("--user", default="quadbench", help="the user that runs the worker (default: %(default)s)")
    unit.add_argument(
        "--drain-for", type=duration_s, default=float(DRAIN_S), metavar="TIME", help="time for running jobs to end (default: 1h)"
    )


def run_attempt(options: Options) -> int:
    return attempt_client.main([options.order])


def run_init(options: Options) -> int:
    source = database_of(options.layout)
    if isinstance(source, Path):
        raise UserError(
            f"${DATABASE_VARIABLE} is not set, and hosts cannot share the database of a results folder",
            hint=f"export {DATABASE_VARIABLE}=postgresql://USER@HOST/NAME; see docs/farm.md",
        )
    before = schema_of(source)
    engine = open_engine(source)
    name = name_of(engine)
    engine.dispose()
    after = schema_of(source)
    is_old = before not in (None, after)
    tables = "were created" if before is None else f"were upgraded from schema {before} to {after}" if is_old else "exist"
    store = required_store().name if store_of() is not None else None
    if options.json:
        print_json({"database": name, "schema_before": before, "schema": after, "store": store})
        return 0
    print_text(f"database {name} is reachable: its tables {tables}")
    without = f"no store: ${STORE_VARIABLE} is not set, so hosts share no bundles and pictures"
    print_text(f"store {store} is reachable" if store else without)
    return 0


def run_status(options: Options) -> int:
    with open_db(options.layout, open_for_reading) as engine:
        status = queue_status(engine)
        workers = Workers(engine).known()
    if options.json:
        print_json({"schema_version": 1, **asdict(status), "workers": [_worker_json(worker) for worker in workers]})
    else:
        counts = ", ".join(f"{status.states.get(state.value, 0)} {state.value}" for state in JobState)
        oldest_s = status.oldest_waits_s
        waits = "" if oldest_s is None else f"; the oldest has waited for {oldest_s / 60:.0f} min"
        print_text(f"jobs: {counts}{waits}")
        owners = [
            (owner, str(states.get(JobState.WAITING.value, 0)), str(states.get(JobState.RUNNING.value, 0)))
            for owner, states in status.owners.items()
        ]
        _print(("owner", "waiting", "running"), owners)
        rows, devices = list[Sequence[str]](), list[Sequence[str]]()
        for known in workers:
            worker, count = known.worker, str(len(known.worker.devices))
            state = "lost" if not known.is_here else "draining" if known.is_draining else "ready"
            takes, seen = ", ".join(worker.capabilities), _time(known.last_seen)
            rows.append((worker.name, worker.host, worker.version, takes, count, state, seen))
            for device in worker.devices if known.is_here else ():
                profile, serial = (device.labels.get(name, _NONE) for name in ("profile", "serial"))
                devices.append((device.name, profile, serial, worker.host, worker.name))
        _print(("worker", "host", "quadbench", "takes", "devices", "state", "last seen"), rows)
        _print(("device", "profile", "serial", "host", "worker"), devices)
        if not devices:
            print_text("no devices; a worker reports its devices some seconds after its start")
    return _fault_exit_code(status.faults)


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
            print_text(f"job {job.id} waits for {', '.join(f'job {needed}' for needed in job.after)}")
    rows = [
        (str(past.number), past.worker, past.seat, _time(past.started_at), _time(past.ended_at), past.reason or _NONE)
        for past in attempts
    ]
    _print(("attempt", "worker", "where", "from", "until", "reason"), rows)
    for past in attempts:
        if past.lines:
            print_text(f"attempt {past.number} logged:\n{past.lines}")
    return _fault_exit_code(list(read.faults.values()))


def run_cancel(options: Options) -> int:
    why = f"cancelled by {user_and_host()}" + (f": {options.why}" if options.why else "")
    with open_db(options.layout) as engine:
        queue = JobQueue(engine)
        is_job = options.what.isdecimal()
        jobs = [queue.cancel(int(options.what), why)] if is_job else queue.cancel_run(options.what, why)
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


def run_unit(options: Options) -> int:
    text = systemd_unit(Path(sys.executable).with_name("quadbench"), options.user, int(options.drain_for))
    above = f"# For /etc/systemd/system/quadbench-worker.service; {ENVIRONMENT_FILE} sets {DATABASE_VARIABLE}"
    print_answer(options, {"unit": text, "environment_file": str(ENVIRONMENT_FILE)}, f"{above}\n{text}")
    return 0


def _fault_exit_code(faults: Sequence[str]) -> int:
    for fault in faults:
        print_error(fault)
    return ArtifactError.exit_code if faults else 0


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table unless it is empty."""
    if rows:
        print_rows(columns, rows, whole=("job", "run", "device", "attempt"))


def _worker_json(known: KnownWorker) -> dict[str, Any]:
    return {**asdict(known.worker), **{key: value for key, value in asdict(known).items() if key != "worker"}}


def _job_words(job: Job) -> Sequence[str]:
    attempt = f"{job.attempt} of {job.most_attempts}"
    where, reason = job.seat or _NONE, job.reason or ""
    return str(job.id), job.run_id, job.kind.value, job.needs, job.owner, _state(job), attempt, where, reason


def _state(job: Job) -> str:
    if job.state is JobState.RUNNING and job.is_stopping:
        return "asked to stop"
    return f"{job.state.value} until {_time(job.not_before)}" if job.not_before else job.state.value


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else _NONE


def run(options: Options) -> int:
    with requires_extra("farm"):
        from quadbench.dispatch.metrics import FarmMetrics, WorkerMetrics, serve
    from quadbench.devices.addresses import parse_address
    from quadbench.dispatch.attempts import serving_attempts
    from quadbench.dispatch.log_lines import log_to_stderr
    from quadbench.dispatch.offers import Offers, capabilities, given_device
    from quadbench.dispatch.worker import Worker

    given = [given_device(parse_address(word)) for word in split_list(options.devices)]
    required_store()
    log_to_stderr(as_json=options.log_json)
    here = host_name()
    itself = NewWorker(
        name=options.name or here, host=here, version=version("quadbench"), capabilities=capabilities(), devices=()
    )
    with ExitStack() as stack:
        engine = open_engine(database_of(options.layout))
        stack.callback(engine.dispose)
        metrics = WorkerMetrics()
        if options.metrics is not None:
            stack.callback(serve(options.metrics, FarmMetrics(engine)))
        devices = stack.enter_context(Offers(given, engine, options.layout))
        log_worker(itself, [device.name for device in devices.present], engine)
        attempts = stack.enter_context(serving_attempts(options.layout.root, logs_json=options.log_json))
        worker = Worker(itself, engine, devices, attempts.start, metrics)
        stack.enter_context(_stop_on_signals(worker))
        worker.work()
    return 0


def log_worker(itself: NewWorker, devices: Sequence[str], engine: sa.Engine) -> None:
    """Log which jobs a farm worker takes: builds, compilations, runs on its devices. Warn if a live worker has the same name."""
    namesakes = [one for one in Workers(engine).known() if one.worker.name == itself.name and one.is_here]
    for one in namesakes:
        log.warning(
            "another worker '%s' on host '%s' was seen at %s; if it still runs, give one of the two another --name",
            *(itself.name, one.worker.host, f"{one.last_seen:%H:%M:%S} UTC"),
        )
    takes = ", ".join((*itself.capabilities, *devices)) or "nothing: this host has no device, and can neither build nor compile"
    log.info("worker '%s' of quadbench %s takes jobs of %s for: %s", itself.name, itself.version, name_of(engine), takes)


@contextmanager
def _stop_on_signals(worker: "Worker") -> Iterator[None]:
    """Make SIGTERM and Ctrl-C call the worker's `stop` while the `with` block runs."""
    taken = {number: signal.signal(number, lambda *_: worker.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _worker_name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _MAX_NAME_LENGTH:
        raise argparse.ArgumentTypeError(f"{quote(text)} is not a name; expected 1 to {_MAX_NAME_LENGTH} printable characters")
    return text
