"""Each launch's samples are also kept in one row, which a report reads in a hundredth of the time. Old launches get it too."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and write the rows of the launches that are there."""
    from quadbench.results.records import pack_stored  # which makes the rows of new launches too

    op.create_table(
        "sample_kinds",
        sa.Column("digest", sa.String(), nullable=False, primary_key=True),
        sa.Column("kinds", sa.Text(), nullable=False),
    )
    op.create_table(
        "packed_samples",
        sa.Column(
            "record",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.ForeignKey("records.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("kinds", sa.String(), sa.ForeignKey("sample_kinds.digest"), nullable=False),
        sa.Column("numbers", sa.LargeBinary(), nullable=False),
        sa.Column("readings", sa.Text(), nullable=False),
    )
    pack_stored(op.get_bind())
