"""Read the JSON results that finished farm jobs stored in the database. The caller validates the results."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from pydantic_core import from_json

from quadbench.errors import ArtifactError
from quadbench.farm.job import MOST_ANSWER_BYTES, Job, JobState
from quadbench.results.engine import begin_read, name_of
from quadbench.results.schema import AttemptRow


def answers(engine: sa.Engine, jobs: Sequence[Job]) -> dict[int, Any]:
    """Return a dict from the id of each finished job to the job's parsed JSON result. The value is None if no result was stored.

    Raises:
        StorageError: the database cannot be read.
        ArtifactError: a result is not JSON, or too long.
    """
    done = {job.id: job for job in jobs if job.state is JobState.DONE}
    columns = AttemptRow.job, AttemptRow.number, sa.func.substr(AttemptRow.answer, 1, MOST_ANSWER_BYTES + 1).label("answer")
    with begin_read(engine) as connection:
        rows = connection.execute(sa.select(*columns).where(AttemptRow.job.in_(done))).all()
        return {row.job: _read(engine, row.job, row.answer) for row in rows if row.number == done[row.job].attempt}


def _read(engine: sa.Engine, job: int, text: Any) -> Any:
    if text is None:
        return None
    try:
        if not isinstance(text, str) or len(text) > MOST_ANSWER_BYTES:
            raise ValueError(f"expected a text of at most {MOST_ANSWER_BYTES} bytes")
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ArtifactError(f"{name_of(engine)} is damaged: the answer of job {job} cannot be read: {error}") from error
