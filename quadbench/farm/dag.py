"""A farm run as a DAG for HTCondor's DAGMan: one node for each job, with edges from the jobs that it needs.

What a job does lies in the database. Its node has the job's id, the requirement on its slot, and the rules for another try.

If the pool or the database does not answer, functions raise a QuadbenchError and change nothing. They raise UserError if the pool
refuses this user or the jobs belong to somebody else, and UnknownNameError if there is no such job or run.
"""

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from quadbench.errors import UserError, quote
from quadbench.farm.condor import Condor, quoted
from quadbench.farm.job import Job
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.jobs import FarmJobs, job_query
from quadbench.farm.pool_setup import filled
from quadbench.farm.slots import encoded, requirement
from quadbench.results.engine import begin_read
from quadbench.results.schema import JobRow

JOB_DONE, JOB_FAILED = 0, 65
"""Exit codes of an attempt whose job is done, or has failed for good (EX_DATAERR). After any other, the job is tried again."""
TRY_AGAIN = 75
"""Exit code of an attempt that failed for now (EX_TEMPFAIL). As after any unexpected end, the job is held, and then released."""

_PLAIN = re.compile(r"(?:[^\W_]|[ $+,./:@_~-]){1,500}")  # a path or a version that a submit description takes as it is


def submit_dag(pool: Condor, run_id: str, jobs: Sequence[Job]) -> None:
    """Submit a run's jobs to the pool as a DAG, with this user's tokens, by which DAGMan submits the jobs at the head.
    Raise UserError also if the run's id has special characters, or this user has no token.
    """
    if encoded(run_id) != run_id:
        raise UserError(f"a run of the farm cannot be called {quote(run_id)}; expected letters, digits, '-' and '_'")
    schedd = pool.schedd()
    configuration, version = schedd.get("QuadbenchConfiguration"), schedd.get("CondorVersion")
    if not all(isinstance(text, str) and _PLAIN.fullmatch(text) for text in (configuration, version)):
        raise UserError("the pool's head was not set up by quadbench", hint="quadbench farm init, at the head")
    with tempfile.TemporaryDirectory(prefix="quadbench-dag-") as name:
        folder = Path(name)
        _copy_tokens(pool.tokens(), folder / "tokens.d")
        (folder / "run.dag").write_text(dag_text(jobs))
        (folder / "run.sub").write_text(filled("run.sub.j2", run=run_id, configuration=configuration, version=version))
        pool.submit(folder, "run.sub")


def cancel_job(engine: sa.Engine, pool: Condor, job_id: int, why: str) -> Job:
    """Cancel a job and those that depend on it, or ask the attempt that runs it to stop. Return the job."""
    with begin_read(engine) as connection:
        run_id = connection.scalar(job_query(job_id).with_only_columns(JobRow.run_id))
    if run_id is not None:
        pool.remove(f"QuadbenchJob == {job_id} && {_of_run(str(run_id))}", why)
    return FarmJobs(engine).cancel(job_id, why)


def cancel_run(engine: sa.Engine, pool: Condor, run_id: str, why: str) -> list[Job]:
    """Cancel a run's waiting jobs, and ask the attempts at its running ones to stop. Return these jobs."""
    listed_jobs(engine, run_id)  # a run that the database does not know is left alone
    pool.remove(_of_run(run_id), why)
    return FarmJobs(engine).cancel_run(run_id, why)


def remove_jobs(pool: Condor, jobs: Sequence[Job], why: str) -> None:
    """Remove jobs that are cancelled, or asked to stop, from the pool's queue, by two of HTCondor's programs for all of them."""
    ids = dict[str, list[str]]()
    for job in jobs:
        ids.setdefault(job.run_id, []).append(str(job.id))
    own = [f"({_of_run(run)} && member(QuadbenchJob, {{{','.join(some)}}}))" for run, some in ids.items()]
    if own:
        pool.remove(" || ".join(own), why)


def settle(engine: sa.Engine, pool: Condor) -> list[Job]:
    """End the pool's open jobs whose runs have left its queue, such as by condor_rm, and lost attempts.
    Return the changed jobs. Jobs that were submitted to another pool stay as they are.
    """
    return FarmJobs(engine).settle(pool.queued_runs(), pool.identity)


def _of_run(run_id: str) -> str:
    return f"QuadbenchRun == {quoted(encoded(run_id))}"


def _copy_tokens(tokens: Path, folder: Path) -> None:
    """Copy the folder `tokens` of this user's tokens to `folder`. Raise UserError if there are none."""
    try:
        if tokens.is_dir() and any(tokens.iterdir()):
            shutil.copytree(tokens, folder)
            return
    except OSError as error:
        raise UserError(f"the tokens of the pool in '{tokens}' cannot be read: {error}") from error
    raise UserError(f"there is no token of the pool in '{tokens}'", hint="get one: quadbench farm token NAME, at the head")


def dag_text(jobs: Sequence[Job]) -> str:
    """Return the DAG of a run's jobs. All texts in it are ids, or encoded."""
    from quadbench.devices.lab.leases import lease_time_s

    lines = [filled("attempt.sub.j2", job_done=JOB_DONE, job_failed=JOB_FAILED, try_again=TRY_AGAIN)]
    for job in jobs:
        values = {
            "job": str(job.id),
            "run": job.run_id,
            "need": encoded(job.needs),
            "owner": encoded(job.owner),
            "loads": encoded(job.affinity),
            "lease": str(round(lease_time_s())),
            "requirement": requirement(job.needs, job.version),
        }
        lines.append(f"JOB job{job.id} attempt\n")
        lines.append(f"VARS job{job.id} {' '.join(f'{name}={_word(value)}' for name, value in values.items())}\n")
    lines += [f"PARENT {' '.join(f'job{needed}' for needed in job.after)} CHILD job{job.id}\n" for job in jobs if job.after]
    return "".join(lines)


def _word(value: str) -> str:
    """Return a value in quotes, as DAGMan reads it: unlike HTCondor's other tools, it takes a backslash as an escape."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
