"""Nights of regression tests: what each measured and ruled, and what people have acknowledged of it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "nights",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False, index=True),
        sa.Column("began_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("planned", sa.JSON, nullable=False),
    )
    _create_measurements()
    _create_rulings()
    op.create_table(
        "acknowledgements",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("case_name", sa.String, nullable=False, index=True),
        sa.Column("night", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.Column("device", sa.String),
        sa.Column("task", sa.String),
        sa.Column("key", sa.String),
    )


def downgrade() -> None:
    """Take them away, and with them every night."""
    for table in ("acknowledgements", "night_rulings", "night_points", "night_measurements", "nights"):
        op.drop_table(table)


def _create_measurements() -> None:
    op.create_table(
        "night_measurements",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("night", sa.String, sa.ForeignKey("nights.id", ondelete="CASCADE"), nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("case_name", "device", "address")),
        sa.Column("measured_at", _TIME, nullable=False),
        sa.Column("bundle", sa.String, nullable=False),
        sa.Column("kit", sa.String),
        sa.Column("yardstick", sa.String, nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("comparison", sa.String, nullable=False),
        sa.Column("runs", sa.JSON, nullable=False),
        sa.Column("caveats", sa.JSON, nullable=False),
        sa.UniqueConstraint("night", "case_name", "device", name="uq_night_measurements"),
    )
    op.create_index("ix_night_measurements_series", "night_measurements", ["case_name", "device", "measured_at"])
    op.create_table(
        "night_points",
        sa.Column("measurement", _BIG, sa.ForeignKey("night_measurements.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        *(sa.Column(name, sa.Double) for name in ("yardstick", "ratio", "low", "high")),
    )


def _create_rulings() -> None:
    op.create_table(
        "night_rulings",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("night", sa.String, sa.ForeignKey("nights.id", ondelete="CASCADE"), nullable=False, index=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("case_name", "device", "address")),
        sa.Column("told_at", _TIME, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("detector", sa.Integer, nullable=False),
        *(sa.Column(name, sa.String) for name in ("task", "key", "owner")),
        *(sa.Column(name, sa.Double) for name in ("value", "expected", "ratio", "low", "high")),
        *(sa.Column(name, sa.String) for name in ("last_good_bundle", "last_good_kit", "comparison")),
    )
    op.create_index("ix_night_rulings_series", "night_rulings", ["case_name", "device", "night"])
