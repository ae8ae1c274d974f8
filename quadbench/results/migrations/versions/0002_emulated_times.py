"""The view `kpis` without the times of an NPU's emulator, which say nothing about any device."""

from alembic import op

from quadbench.results.migrations.kpis import kpis_view

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNTED = "r.status = 'OK' AND NOT s.is_warmup"
_EMULATED_TIME = "CAST(r.caveats AS TEXT) LIKE '%EMULATED_NPU%' AND substr(s.metric, length(s.metric) - 2) = '_ns'"


def upgrade() -> None:
    """Define the view anew."""
    op.execute("DROP VIEW kpis")
    op.execute(kpis_view(f"{_COUNTED} AND NOT ({_EMULATED_TIME})"))


def downgrade() -> None:
    """Define it as it was."""
    op.execute("DROP VIEW kpis")
    op.execute(kpis_view(_COUNTED))
