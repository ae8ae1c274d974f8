"""The view `kpis` without the times of an emulated CPU either."""

from alembic import op

from quadbench.results.migrations.kpis import kpis_view

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COUNTED = "r.status = 'OK' AND NOT s.is_warmup"
_TIME = "substr(s.metric, length(s.metric) - 2) = '_ns'"
_OF_NPU, _OF_CPU = (f"CAST(r.caveats AS TEXT) LIKE '%{caveat}%'" for caveat in ("EMULATED_NPU", "EMULATED_CPU"))


def upgrade() -> None:
    """Define the view anew."""
    op.execute("DROP VIEW kpis")
    op.execute(kpis_view(f"{_COUNTED} AND NOT (({_OF_NPU} OR {_OF_CPU}) AND {_TIME})"))


def downgrade() -> None:
    """Define it as it was."""
    op.execute("DROP VIEW kpis")
    op.execute(kpis_view(f"{_COUNTED} AND NOT ({_OF_NPU} AND {_TIME})"))
