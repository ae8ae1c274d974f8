"""Records, their samples, and the view `kpis`."""

import sqlalchemy as sa
from alembic import op

from quadbench.results.migrations.kpis import kpis_view

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the schema."""
    _create_records()
    _create_samples()
    op.execute(kpis_view("r.status = 'OK' AND NOT s.is_warmup"))


def downgrade() -> None:
    """Drop the schema, and every record with it."""
    op.execute("DROP VIEW kpis")
    op.drop_table("samples")
    op.drop_table("records")


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("record_id", sa.String, nullable=False, unique=True),
        sa.Column("run_id", sa.String, nullable=False, index=True),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipe_name", sa.String, nullable=False),
        sa.Column("recipe_digest", sa.String, nullable=False),
        sa.Column("bundle_digest", sa.String, nullable=False),
        sa.Column("compiled_digest", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("device_address", sa.String, nullable=False),
        sa.Column("device_family", sa.String, nullable=False),
        sa.Column("device_serial", sa.String, nullable=False),
        sa.Column("device_profile", sa.String, nullable=False),
        sa.Column("device_title", sa.String, nullable=False),
        sa.Column("device_soc_model", sa.String, nullable=False),
        sa.Column("device_cpu", sa.String, nullable=False),
        sa.Column("device_android_release", sa.String),
        sa.Column("device_fingerprint", sa.String),
        sa.Column("variant", sa.String, nullable=False),
        sa.Column("launch", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("error_class", sa.String),
        sa.Column("reason", sa.Text),
        sa.Column("caveats", sa.JSON, nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("images", sa.JSON, nullable=False),
    )


def _create_samples() -> None:
    op.create_table(
        "samples",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("record", _BIG, sa.ForeignKey("records.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("metric", sa.String, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("task", sa.String),
        sa.Column("component", sa.String),
        sa.Column("iteration", _BIG),
        sa.Column("step", _BIG),
        sa.Column("item", sa.String),
        sa.Column("is_warmup", sa.Boolean, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
    )
