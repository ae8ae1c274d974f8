"""The view `kpis` leaves out the memory of emulated phones, as it did their times."""

from alembic import op

from quadbench.results.schema import KPIS

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the view again, as new databases have it.

    Records keep what was measured: on an emulated phone, a process's memory holds the emulator's own too.
    """
    op.execute("DROP VIEW IF EXISTS kpis")
    op.execute(KPIS)
