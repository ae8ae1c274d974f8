"""Whatever stands in a column of the tables of jobs, all is answered or refused by name, and good jobs are begun and done."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bad_input.databases import _VALUES as VALUES
from support.sentences import raising, reads, says
from support.stored_records import query

from quadbench.errors import ArtifactError, QuadbenchError
from quadbench.farm.job import MOST_ANSWER_BYTES, Job, JobKind, NewJob
from quadbench.farm.job_status import answers, job_counts, job_with_attempts, last_jobs, listed_jobs, open_runs
from quadbench.farm.jobs import FarmJobs, Start
from quadbench.farm.slots import capability_need
from quadbench.results.engine import Source, open_engine
from quadbench.results.schema import AttemptRow, FenceRow, JobNeedRow, JobRow

BUILD = NewJob(kind=JobKind.BUILD, needs=capability_need("build"))
BEHIND = NewJob(kind=JobKind.COMPILE, needs="x", after=(0,))
COLUMNS = [
    (table.__tablename__, column.name)
    for table in (JobRow, JobNeedRow, AttemptRow, FenceRow)
    for column in table.__table__.columns
    if not column.primary_key or table is JobNeedRow
]
DAMAGES = [
    ("payload = '{'", "payload"),
    ("payload = '[1]'", "payload"),
    ("payload = '{\"a\": NaN}'", "payload"),
    ("attempt = -1", "attempt: -1, expected 0 to 3"),
    ("attempt = 7", "attempt: 7, expected 0 to 3"),
    ("state = 'running', seat = NULL", "expected a seat"),
    ("kind = 'paint'", "kind"),
    ("priority = 2000000000", "priority"),
    ("most_attempts = 0", "most_attempts"),
    ("run_id = '../run'", "cannot name a file"),
    ("affinity = '" + "b" * 400 + "'", "affinity"),
]


@pytest.fixture
def jobs(engine: sa.Engine) -> FarmJobs:
    return FarmJobs(engine)


def submit(jobs: FarmJobs, *batch: NewJob, run_id: str = "run-a") -> list[int]:
    return [job.id for job in jobs.submit(run_id, batch, "ana@lab-1", "0.1.0", lambda _: None)]


def begin(jobs: FarmJobs, job: int, number: int = 1, seat: str = "R3CX", run: str = "run-a") -> Job:
    return jobs.begin(Start(job=job, run=run, number=number, seat=seat, host="lab-1"))


@pytest.mark.parametrize("damage", DAMAGES, ids=[reason.partition(",")[0].replace(" ", "-") for _, reason in DAMAGES])
def test_a_damaged_row_is_named_and_not_begun_and_cancel_fails_it_with_what_needs_it(
    database: Source, engine: sa.Engine, jobs: FarmJobs, damage: tuple[str, str]
) -> None:
    change, reason = damage
    damaged, behind = submit(jobs, BUILD, BEHIND)
    (good,) = submit(jobs, BUILD, run_id="run-b")
    query(database, f"UPDATE jobs SET {change} WHERE id = {damaged}")
    with raising(ArtifactError, damaged, reason, "quadbench farm cancel"):
        begin(jobs, damaged)
    assert begin(jobs, good, run="run-b").attempt == 1
    fault = listed_jobs(engine).faults[damaged]
    says(fault, damaged, reason)
    assert job_counts(engine).faults == [fault]
    with raising(ArtifactError, damaged, "the job has failed now", snapshot=False):
        jobs.cancel(damaged, "damaged")
    rows = query(database, f"SELECT state, reason FROM jobs WHERE id IN ({damaged}, {behind}) ORDER BY id")
    assert [state for state, _ in rows] == ["failed", "cancelled"]
    assert rows[0][1] == fault
    reads(rows[1][1], damaged)


@pytest.mark.parametrize("act", ["cancel_run", "settle"])
def test_a_damaged_row_fails_with_its_run_and_keeps_no_other_job_of_it_open(database: Source, jobs: FarmJobs, act: str) -> None:
    damaged, *_ = submit(jobs, BUILD, BEHIND, BUILD)
    query(database, f"UPDATE jobs SET payload = 'x' WHERE id = {damaged}")
    query(database, "UPDATE jobs SET submitted_at = '2020-01-01 00:00:00.000000'")
    ended = jobs.settle({}) if act == "settle" else jobs.cancel_run("run-a", "over")
    assert damaged not in [job.id for job in ended]
    assert [state for (state,) in query(database, "SELECT state FROM jobs ORDER BY id")] == ["failed", "cancelled", "cancelled"]


def test_a_running_job_whose_row_was_damaged_is_neither_finished_nor_given_back(database: Source, jobs: FarmJobs) -> None:
    (job,) = submit(jobs, BUILD)
    attempt = begin(jobs, job)
    query(database, "UPDATE jobs SET payload = '{'")
    acts: Sequence[Callable[[], Job]] = (
        lambda: jobs.finish(attempt),
        lambda: jobs.give_back(attempt, "stop"),
        lambda: begin(jobs, job, 2),
    )
    for act in acts:
        with raising(ArtifactError, job):
            act()
    assert query(database, "SELECT state FROM jobs") == [("running",)]


def test_a_state_that_nobody_knows_is_told(database: Source, engine: sa.Engine, jobs: FarmJobs) -> None:
    submit(jobs, BUILD)
    query(database, "UPDATE jobs SET state = 'sleeping'")
    reads(job_counts(engine).faults, "sleeping")
    assert jobs.settle({}) == []


def test_jobs_that_need_each_other_are_cancelled_like_others(database: Source, jobs: FarmJobs) -> None:
    first, second = submit(jobs, BUILD, BEHIND)
    query(database, f"INSERT INTO job_needs (job, needed) VALUES ({first}, {second})")
    jobs.cancel(first, "a circle")
    assert query(database, "SELECT DISTINCT state FROM jobs") == [("cancelled",)]


@pytest.mark.parametrize("answer", ["{", "NaN", '{"a": Infinity}', "[" * 5000, '"' + "x" * MOST_ANSWER_BYTES + '"'])
def test_an_answer_that_cannot_be_read_is_refused_by_its_job(
    database: Source, engine: sa.Engine, jobs: FarmJobs, answer: str
) -> None:
    (job,) = submit(jobs, BUILD)
    done = jobs.finish(begin(jobs, job), {})
    query(database, f"UPDATE attempts SET answer = '{answer}'")
    with raising(ArtifactError, f"the answer of job {job}"):
        answers(engine, [done])


# Only SQLite takes any value in any column


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with jobs that are done, failed, running and waiting, and that need each other."""
    path = tmp_path_factory.mktemp("farm") / "quadbench.sqlite"
    engine = open_engine(path)
    jobs = FarmJobs(engine)
    done, bad, running, _ = submit(jobs, *[BUILD] * 4)
    jobs.finish(begin(jobs, done), {"a": 1}, "went well")
    jobs.fail(begin(jobs, bad), "no", is_transient=False)
    begin(jobs, running)
    submit(jobs, BUILD, BEHIND, run_id="run-b")
    engine.dispose()
    return path


@contextlib.contextmanager
def _refused_by_name() -> Iterator[None]:
    with contextlib.suppress(QuadbenchError):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("place", COLUMNS, ids=".".join)
def test_any_value_in_any_column_is_refused_by_name_and_costs_no_other_job_its_turn(
    place: tuple[str, str], farm: Path, tmp_path: Path
) -> None:
    table, column = place
    for number, value in enumerate(VALUES[COLUMNS.index(place) % 2 :: 2]):  # a share for each: all of them take minutes
        path = tmp_path / f"{number}.sqlite"
        shutil.copyfile(farm, path)
        with contextlib.suppress(Exception):  # what the table itself does not take
            query(path, f"UPDATE {table} SET {column} = {value}")
        engine = open_engine(path)
        try:
            _use(FarmJobs(engine), engine)
        finally:
            engine.dispose()


def _use(jobs: FarmJobs, engine: sa.Engine) -> None:
    """Begin and finish a good job; whatever is asked of the others is answered, or refused by name."""
    good, bad = submit(jobs, BUILD, BUILD, run_id="run-c")
    jobs.finish(begin(jobs, good, seat="Z9", run="run-c"))
    assert jobs.fail(begin(jobs, bad, run="run-c"), "a fault", is_transient=True).attempt == 1
    with _refused_by_name():
        assert set(last_jobs(engine, ["R3CX", "Z9"])) >= {"Z9"}
    for job in range(1, 7):
        with _refused_by_name():
            jobs.fail(begin(jobs, job, 2), "a fault", is_transient=job % 2 == 0)
        with _refused_by_name():
            assert len(job_with_attempts(engine, job)[0].jobs) + len(job_with_attempts(engine, job)[0].faults) == 1
    for ask in (
        lambda: job_counts(engine),
        lambda: open_runs(engine),
        lambda: answers(engine, listed_jobs(engine).jobs),
        lambda: listed_jobs(engine, "run-a"),
        lambda: jobs.cancel(5, "over"),
        lambda: jobs.cancel_run("run-b", "over"),
        lambda: jobs.settle({"run-c": ()}),
    ):
        with _refused_by_name():
            ask()
