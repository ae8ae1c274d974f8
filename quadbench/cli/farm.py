"""The command `farm`: submit runs and fetch their results; show a pool's state and jobs; cancel jobs. See also farm_pool."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from quadbench.artifacts.safe_text import one_line
from quadbench.cli import farm_pool
from quadbench.cli.console import print_error, print_json, print_rows, print_text
from quadbench.cli.device_options import add_devices, add_run_options
from quadbench.cli.options import Options, Subparsers, add_action, add_full, add_group
from quadbench.errors import QuadbenchError
from quadbench.farm.condor import Ad, this_pool
from quadbench.farm.dag import cancel_job, cancel_run, settle
from quadbench.farm.job import Job, JobState
from quadbench.farm.job_status import MOST_LISTED, job_counts, job_with_attempts, listed_jobs, open_farm_database
from quadbench.farm.slots import Slot, capability_need, read_slots, why_not_started
from quadbench.host import user_and_host
from quadbench.results.engine import open_db, open_for_reading

_MOST_WAITING = 20  # waiting jobs that are listed with a reason
_MOST_DIGITS = 20  # of a job's number
_NONE = "–"


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "farm")
    farm_pool.add(actions)
    _add_runs(actions)
    add_action(actions, "status", run_status, "show jobs and why they wait, users' shares, devices and problems")
    jobs = add_action(actions, "jobs", run_jobs, "list the latest jobs, or those of a run")
    jobs.add_argument("run_id", nargs="?", metavar="RUN", help="the id of a run")
    logs = add_action(actions, "logs", run_logs, "show each attempt at a job, with its result and last log lines")
    logs.add_argument("job", type=int, metavar="JOB", help="the job's number")
    cancel = add_action(actions, "cancel", run_cancel, "cancel a job or all jobs of a run; running jobs end when they can")
    cancel.add_argument("what", metavar="JOB|RUN", help="a job's number or the id of a run")
    cancel.add_argument("--why", metavar="TEXT", help="the reason, shown with the job")


def _add_runs(actions: Subparsers) -> None:
    """Add the actions that submit and fetch runs."""
    submit = add_action(actions, "submit", run_submit, "submit a recipe or bundle to the farm, without waiting for its results")
    submit.add_argument("source", metavar="RECIPE_OR_BUNDLE", help="a YAML file, a recipe's name, or a bundle's folder")
    add_devices(submit, of_farm=True)
    add_run_options(submit, later="counted from each device's start")
    fetch = add_action(actions, "fetch", run_fetch, "wait for a run of the farm, fetch its results, and write its report")
    fetch.add_argument("run_id", metavar="RUN", help="the id of a submitted run")
    add_full(fetch)


def run_submit(options: Options) -> int:
    from quadbench.cli import run_source

    return run_source.run_submit(options)


def run_fetch(options: Options) -> int:
    from quadbench.cli import run_source

    return run_source.run_fetch(options)


def run_status(options: Options) -> int:
    with open_farm_database(options.layout) as engine:
        slots, shares, problem = _asked_pool(engine)
        counts, jobs = job_counts(engine), listed_jobs(engine)
    waiting = [job for job in jobs if job.state is JobState.WAITING][:_MOST_WAITING]
    reasons = {job.id: "the pool cannot be asked" if problem else _why_waits(job, jobs, slots) for job in waiting}
    if options.json:
        told = {"slots": slots, "shares": shares, "waits": reasons, "problem": problem and str(problem)}
        print_json({"schema_version": 2, **asdict(counts), **told})
        return _problem_exit_code(problem)
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
    if (more := counts.states.get(JobState.WAITING.value, 0) - len(waiting)) > 0 and waiting:
        print_text(f"and {more} more waiting jobs: quadbench farm jobs")
    devices = [slot for slot in slots if slot.bay.address]
    columns = ("device", "profile", "serial", "host", "quadbench", "state")
    _print(columns, [_slot_words(slot) for slot in devices])
    rooms = [slot for slot in slots if not slot.bay.address]
    _print(("host that builds", "quadbench", "takes", "state"), list(map(_room_words, rooms)))
    if not devices and not problem:
        print_text("no devices; a host reports its devices some seconds after its start: quadbench farm check")
    return _problem_exit_code(problem)


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
        jobs = listed_jobs(engine, options.run_id)
    if options.json:
        print_json(jobs)
    elif jobs:
        lost = _lost(jobs)
        columns = ("job", "run", "kind", "needs", "owner", "state", "attempt", "where", "reason")
        _print(columns, [_job_words(job, lost) for job in jobs])
    else:
        print_text("no jobs")
    if len(jobs) == MOST_LISTED:
        print_error(f"only {MOST_LISTED} jobs are listed")
    return 0


def run_logs(options: Options) -> int:
    with open_db(options.layout, open_for_reading) as engine:
        job, attempts = job_with_attempts(engine, options.job)
    if options.json:
        print_json({"job": [job], "attempts": attempts})
        return 0
    state = _state(job, _lost([job]))
    print_text(f"job {job.id} of run {job.run_id} ({job.kind.value}, {job.needs}) of {job.owner} is {state}")
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
    return 0


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


def _problem_exit_code(problem: QuadbenchError | None) -> int:
    if problem:
        print_error(str(problem))
    return problem.exit_code if problem else 0


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


def _lost(jobs: Sequence[Job]) -> Collection[int]:
    """Return the ids of those running jobs that no slot of the pool runs any more. Return none if it cannot be asked."""
    running = [job for job in jobs if job.state is JobState.RUNNING]
    with suppress(QuadbenchError):
        runs = this_pool().queued_runs() if running else {}
        return {job.id for job in running if job.id in runs.get(job.run_id, ())}
    return ()


def _job_words(job: Job, lost: Collection[int]) -> Sequence[str]:
    attempt = f"{job.attempt} of {job.most_attempts}"
    where, reason = job.seat or _NONE, job.reason or ""
    return str(job.id), job.run_id, job.kind.value, job.needs, job.owner, _state(job, lost), attempt, where, reason


def _state(job: Job, lost: Collection[int]) -> str:
    if job.id in lost:
        return "lost, waits"
    if job.state is JobState.RUNNING and job.is_stopping:
        return "asked to stop"
    return job.state.value


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else _NONE
