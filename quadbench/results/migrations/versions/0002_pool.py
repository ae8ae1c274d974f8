"""HTCondor assigns the farm's jobs: the tables lose what the former queue needed. Jobs that it had open are cancelled."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_REASON = "it was submitted to the queue of an older quadbench"


def upgrade() -> None:
    """Drop columns and tables of the former queue, and cancel its open jobs."""
    cancelled = (
        "UPDATE jobs SET state = 'cancelled', reason = :reason, ended_at = submitted_at WHERE state IN ('waiting', 'running')"
    )
    op.execute(sa.text(cancelled).bindparams(reason=_REASON))
    for name in ("ix_jobs_line", "ix_jobs_served", "ix_jobs_lost"):
        op.drop_index(name, table_name="jobs")
    for name in ("worker", "until", "not_before", "counts_from", "open_needs"):
        op.execute(f"ALTER TABLE jobs DROP COLUMN {name}")
    op.add_column("jobs", sa.Column("pool", sa.String(), nullable=False, server_default=""))
    op.create_index("ix_jobs_state", "jobs", ["state", "submitted_at"])
    op.create_index("ix_jobs_seat", "jobs", ["seat"])
    op.drop_index("ix_attempts_ended_at", table_name="attempts")
    op.execute("ALTER TABLE attempts DROP COLUMN owner")
    op.execute("ALTER TABLE attempts RENAME COLUMN worker TO host")
    op.drop_table("workers")
