"""Leases say which process holds them, so that one that was killed keeps nobody away."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of leases that are held meanwhile it is not known."""
    op.add_column("leases", sa.Column("job_process", sa.String))


def downgrade() -> None:
    """Take it away."""
    op.drop_column("leases", "job_process")
