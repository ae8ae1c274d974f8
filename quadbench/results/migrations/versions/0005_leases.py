"""Leases of devices, and a name by which a device tells one database from another."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and give the database its name."""
    op.create_table(
        "leases",
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("job_owner", sa.String),
        sa.Column("job_purpose", sa.String),
        sa.Column("job_until", sa.DateTime(timezone=True)),
        sa.Column("reserved_owner", sa.String),
        sa.Column("reserved_purpose", sa.String),
        sa.Column("reserved_until", sa.DateTime(timezone=True)),
    )
    identity = op.create_table("identity", sa.Column("name", sa.String, primary_key=True))
    op.bulk_insert(identity, [{"name": uuid.uuid4().hex}])


def downgrade() -> None:
    """Take them away."""
    op.drop_table("identity")
    op.drop_table("leases")
