"""A launch's samples also in one row, which reports read; since when a regression stands; no memory of emulated phones."""

import sqlalchemy as sa
from alembic import op

from quadbench.results.schema import KPIS

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables with rows of the launches that are there, add three columns to verdicts, and make the view again.

    In older verdicts the columns are null: such a regression began in its own night. Records keep what was measured: on an
    emulated phone, a process's memory holds the emulator's own too, so the view `kpis` leaves it out.
    """
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
    for column in (sa.Column("since", sa.String()), sa.Column("nights", sa.Integer()), sa.Column("good_night", sa.String())):
        op.add_column("night_rulings", column)
    op.execute("DROP VIEW IF EXISTS kpis")
    op.execute(KPIS)
