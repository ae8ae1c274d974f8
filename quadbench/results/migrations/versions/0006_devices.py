"""The inventory: phones that were seen, where and when, and their health."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "devices",
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("serial", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("profile", sa.String),
        sa.Column("chip", sa.String),
        sa.Column("android_release", sa.String),
        sa.Column("abi", sa.String),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("health", sa.String, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("good_jobs", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Take it away, and with it who is in quarantine."""
    op.drop_table("devices")
