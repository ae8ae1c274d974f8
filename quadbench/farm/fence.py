"""Fences: a number for each attempt at a job, so that of several attempts only the last one may store anything.

A queue or engine starts another attempt when it believes the first one dead. The first may only have been frozen. So each attempt
takes a new number before it does anything, and the database checks that number in every transaction that stores a record.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from quadbench.errors import AttemptOverError
from quadbench.results.engine import upsert
from quadbench.results.schema import FenceRow


@dataclass(frozen=True, kw_only=True)
class Fence:
    """One attempt at a job. `job` is the job's unique name; `token` is the attempt's number, higher for each new attempt."""

    job: str
    token: int

    def check(self, connection: sa.Connection) -> None:
        """Raise AttemptOverError if a later attempt has begun. Otherwise block later attempts until the transaction ends."""
        token = connection.scalar(sa.select(FenceRow.token).where(FenceRow.job == self.job).with_for_update())
        if token != self.token:
            raise AttemptOverError(
                f"this attempt at job {self.job} is over: a later one has begun; nothing more of this one is stored",
                hint="a host that stood still loses its jobs to others",
            )


def take_fence(connection: sa.Connection, job: str) -> Fence:
    """Return a Fence for a new attempt at `job`, with the attempt number increased by 1. Older attempts can store nothing more.

    The caller decides whether a new attempt may begin.
    """
    insert = upsert(connection, FenceRow).values(job=job, token=1)
    raised = insert.on_conflict_do_update(index_elements=[FenceRow.job], set_={"token": FenceRow.token + 1})
    return Fence(job=job, token=connection.scalars(raised.returning(FenceRow.token)).one())
