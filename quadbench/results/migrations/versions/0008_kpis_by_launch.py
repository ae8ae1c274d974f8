"""The view `kpis` gives the report's figures: `p50` is the median of the launches' medians, whatever the number of samples."""

from alembic import op

from quadbench.results.migrations.kpis import kpis_by_launch_view, kpis_view

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_OF_LAUNCH = (
    "'session_load_ns', 'adapter_load_ns', 'switch_ns', 'first_unet_ns', 'rom_bytes', 'peak_rss_bytes', 'load_peak_rss_bytes'"
)
_OF_NPU, _OF_CPU = (f"CAST(r.caveats AS TEXT) LIKE '%{caveat}%'" for caveat in ("EMULATED_NPU", "EMULATED_CPU"))
_EMULATED_TIME = f"({_OF_NPU} OR {_OF_CPU}) AND substr(s.metric, length(s.metric) - 2) = '_ns'"


def upgrade() -> None:
    """Define the view anew."""
    op.execute("DROP VIEW kpis")
    op.execute(
        kpis_by_launch_view(
            f"r.status = 'OK' AND (s.metric IN ({_OF_LAUNCH}) OR NOT s.is_warmup) AND NOT ({_EMULATED_TIME})",
            peaks="'peak_rss_bytes', 'load_peak_rss_bytes'",
        )
    )


def downgrade() -> None:
    """Define it as it was."""
    op.execute("DROP VIEW kpis")
    op.execute(kpis_view(f"r.status = 'OK' AND NOT s.is_warmup AND NOT ({_EMULATED_TIME})"))
