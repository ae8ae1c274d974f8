"""The farm's queue: jobs, which of them need which, their attempts, and the workers that ask for them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables, with an index for each question that is asked of all jobs."""
    _create_jobs()
    _create_attempts()
    _create_workers()


def downgrade() -> None:
    """Take them away, and with them what waits."""
    for table in ("workers", "attempts", "job_needs", "jobs"):
        op.drop_table(table)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False, index=True),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("needs", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("submitted_at", _TIME, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("affinity", sa.String, nullable=False),
        sa.Column("most_attempts", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("is_stopping", sa.Boolean, nullable=False),
        sa.Column("worker", sa.String),
        sa.Column("seat", sa.String),
        sa.Column("until", _TIME),
        sa.Column("not_before", _TIME),
        sa.Column("started_at", _TIME),
        sa.Column("ended_at", _TIME),
        sa.Column("reason", sa.Text),
        sa.Column("counts_from", _TIME, nullable=False),
        sa.Column("open_needs", sa.Integer, nullable=False),
    )
    op.create_index("ix_jobs_line", "jobs", ["state", "open_needs", "version", "needs", "owner", "counts_from", "id"])
    op.create_index("ix_jobs_served", "jobs", ["needs", "owner", "started_at"])
    op.create_index("ix_jobs_lost", "jobs", ["state", "until"])
    op.create_table(
        "job_needs",
        sa.Column("job", _BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("needed", _BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True),
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job", _BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("worker", sa.String, nullable=False),
        sa.Column("seat", sa.String, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, index=True),
        sa.Column("reason", sa.Text),
        sa.Column("answer", sa.Text),
        sa.Column("lines", sa.Text),
    )


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("capabilities", sa.Text, nullable=False),
        sa.Column("devices", sa.Text, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("last_seen", _TIME, nullable=False),
        sa.Column("is_draining", sa.Boolean, nullable=False),
    )
