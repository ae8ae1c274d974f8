"""The whole schema: records with their samples and the view `kpis`, leases and phones, the farm's queue, and nights."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the schema, and give the database its name."""
    _create_records()
    _create_samples()
    op.execute(_KPIS)
    _create_leases()
    _create_devices()
    _create_jobs()
    _create_workers()
    _create_nights()
    _create_rulings()


def _texts(*names: str, nullable: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, nullable=nullable) for name in names]


def _numbers(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double) for name in names]


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("record_id", sa.String, nullable=False, unique=True),
        sa.Column("run_id", sa.String, nullable=False, index=True),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("started_at", _TIME, nullable=False, index=True),
        sa.Column("ended_at", _TIME, nullable=False),
        *_texts("recipe_name", "recipe_digest", "bundle_digest", "compiled_digest", "target"),
        *_texts("device_address", "device_family", "device_serial", "device_profile", "device_title", "device_soc_model"),
        *_texts("device_cpu"),
        *_texts("device_android_release", "device_fingerprint", nullable=True),
        sa.Column("variant", sa.String, nullable=False),
        sa.Column("launch", sa.Integer, sa.CheckConstraint("launch >= 0"), nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("error_class", sa.String),
        sa.Column("reason", sa.Text),
        *(sa.Column(name, sa.JSON, nullable=False) for name in ("caveats", "versions", "settings", "state", "images")),
    )


def _create_samples() -> None:
    op.create_table(
        "samples",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("record", _BIG, sa.ForeignKey("records.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("metric", sa.String, nullable=False),
        sa.Column("value", sa.Double, sa.CheckConstraint("value BETWEEN -1e17 AND 1e17"), nullable=False),
        *_texts("task", "component", nullable=True),
        sa.Column("iteration", _BIG, sa.CheckConstraint("iteration >= 0")),
        sa.Column("step", _BIG, sa.CheckConstraint("step >= 0")),
        sa.Column("item", sa.String),
        sa.Column("is_warmup", sa.Boolean, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
    )


_OF_LAUNCH = (
    "'session_load_ns', 'adapter_load_ns', 'switch_ns', 'first_unet_ns', 'rom_bytes', 'peak_rss_bytes', 'load_peak_rss_bytes'"
)
_IS_EMULATED = "CAST(r.caveats AS TEXT) LIKE '%EMULATED_NPU%' OR CAST(r.caveats AS TEXT) LIKE '%EMULATED_CPU%'"
_EMULATED_TIME = f"({_IS_EMULATED}) AND substr(s.metric, length(s.metric) - 2) = '_ns'"
_FIGURE = "run_id, device_address, variant, task, component, metric, labels"
# One row for each figure of a run. Different labels are different figures: a cold adapter load is not a resident one. p50 is the
# median of the launches' medians, as in the reports, and of peaks that of their maxima: a launch needs its highest. The times of
# an emulator say nothing about any device.
_KPIS = f"""
CREATE VIEW kpis AS
WITH kept AS (
    SELECT r.run_id, r.device_address, r.variant, s.task, s.component, s.metric, CAST(s.labels AS TEXT) AS labels,
           s.record, s.value,
           ROW_NUMBER() OVER (
               PARTITION BY s.record, s.task, s.component, s.metric, CAST(s.labels AS TEXT) ORDER BY s.value
           ) AS place,
           COUNT(*) OVER (PARTITION BY s.record, s.task, s.component, s.metric, CAST(s.labels AS TEXT)) AS n
    FROM samples s JOIN records r ON r.id = s.record
    WHERE r.status = 'OK' AND (s.metric IN ({_OF_LAUNCH}) OR NOT s.is_warmup) AND NOT ({_EMULATED_TIME})
), launches AS (
    SELECT {_FIGURE}, COUNT(*) AS n, MIN(value) AS minimum, SUM(value) AS total, MAX(value) AS maximum,
           CASE WHEN metric IN ('peak_rss_bytes', 'load_peak_rss_bytes') THEN MAX(value)
                ELSE AVG(CASE WHEN 2 * place BETWEEN n AND n + 2 THEN value END) END AS typical
    FROM kept
    GROUP BY record, {_FIGURE}
), placed AS (
    SELECT launches.*, ROW_NUMBER() OVER (PARTITION BY {_FIGURE} ORDER BY typical) AS place,
           COUNT(*) OVER (PARTITION BY {_FIGURE}) AS of_launches
    FROM launches
)
SELECT run_id, device_address AS device, task, variant, component, metric, labels,
       COUNT(*) AS launches, CAST(SUM(n) AS BIGINT) AS n, MIN(minimum) AS minimum, SUM(total) / SUM(n) AS mean,
       AVG(CASE WHEN 2 * place BETWEEN of_launches AND of_launches + 2 THEN typical END) AS p50,
       MAX(maximum) AS maximum
FROM placed
GROUP BY {_FIGURE}
"""


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("token", sa.BigInteger, nullable=False),
        *_texts("job_owner", "job_purpose", "job_process", nullable=True),
        sa.Column("job_until", _TIME),
        *_texts("reserved_owner", "reserved_purpose", nullable=True),
        sa.Column("reserved_until", _TIME),
    )
    identity = op.create_table("identity", sa.Column("name", sa.String, primary_key=True))
    op.bulk_insert(identity, [{"name": uuid.uuid4().hex}])


def _create_devices() -> None:
    op.create_table(
        "devices",
        sa.Column("device", sa.String, primary_key=True),
        *_texts("address", "serial", "state", "model"),
        *_texts("profile", "chip", "android_release", "abi", nullable=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("last_seen", _TIME, nullable=False),
        sa.Column("health", sa.String, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("good_jobs", sa.Integer, nullable=False),
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False, index=True),
        *_texts("version", "kind", "needs", "owner"),
        sa.Column("submitted_at", _TIME, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("affinity", sa.String, nullable=False),
        sa.Column("most_attempts", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("is_stopping", sa.Boolean, nullable=False),
        *_texts("worker", "seat", nullable=True),
        *(sa.Column(name, _TIME) for name in ("until", "not_before", "started_at", "ended_at")),
        sa.Column("reason", sa.Text),
        sa.Column("counts_from", _TIME, nullable=False),
        sa.Column("open_needs", sa.Integer, nullable=False),
    )
    op.create_index("ix_jobs_line", "jobs", ["state", "open_needs", "version", "needs", "owner", "counts_from", "id"])
    op.create_index("ix_jobs_served", "jobs", ["needs", "owner", "started_at"])
    op.create_index("ix_jobs_lost", "jobs", ["state", "until"])
    op.create_table(
        "job_needs",
        sa.Column("job", _BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("needed", _BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True),
    )


def _create_workers() -> None:
    op.create_table(
        "attempts",
        sa.Column("job", _BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        *_texts("owner", "worker", "seat"),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, index=True),
        *(sa.Column(name, sa.Text) for name in ("reason", "answer", "lines")),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String, primary_key=True),
        *_texts("host", "version"),
        sa.Column("capabilities", sa.Text, nullable=False),
        sa.Column("devices", sa.Text, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("last_seen", _TIME, nullable=False),
        sa.Column("is_draining", sa.Boolean, nullable=False),
    )


def _create_nights() -> None:
    op.create_table(
        "nights",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False, index=True),
        sa.Column("began_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("planned", sa.JSON, nullable=False),
    )
    op.create_table(
        "night_measurements",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("night", sa.String, sa.ForeignKey("nights.id", ondelete="CASCADE"), nullable=False),
        *_texts("case_name", "device", "address"),
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
        *_numbers("yardstick", "ratio", "low", "high"),
        sa.CheckConstraint("ratio > 0 AND low > 0 AND high > 0"),
    )


def _create_rulings() -> None:
    op.create_table(
        "night_rulings",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("night", sa.String, sa.ForeignKey("nights.id", ondelete="CASCADE"), nullable=False, index=True),
        *_texts("case_name", "device", "address"),
        sa.Column("told_at", _TIME, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("detector", sa.Integer, nullable=False),
        *_texts("task", "key", "owner", nullable=True),
        *_numbers("value", "expected", "ratio", "low", "high"),
        *_texts("last_good_bundle", "last_good_kit", "comparison", nullable=True),
        sa.CheckConstraint("ratio > 0 AND low > 0 AND high > 0"),
    )
    op.create_index("ix_night_rulings_series", "night_rulings", ["case_name", "device", "night"])
    op.create_table(
        "acknowledgements",
        sa.Column("id", _BIG, primary_key=True),
        sa.Column("case_name", sa.String, nullable=False, index=True),
        sa.Column("night", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        *_texts("device", "task", "key", nullable=True),
    )
