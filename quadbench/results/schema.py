"""Tables of the database as SQLAlchemy classes, their creation, and the version of their schema."""

import uuid
from datetime import UTC, datetime
from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from quadbench.errors import ArtifactError


class UtcTime(sa.TypeDecorator[datetime]):
    """A column type for datetimes in UTC. It rejects values without a time zone and returns all values as UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no time zone; expected UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


SCHEMA_VERSION = 1
_RATIOS_ABOVE_0 = "ratio > 0 AND low > 0 AND high > 0"
BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite's INTEGER has 64 bits, and only it can number rows


class Table(DeclarativeBase):
    """The SQLAlchemy base class of all database tables."""

    type_annotation_map: ClassVar = {
        datetime: UtcTime,
        float: sa.Double,
        dict[str, str]: sa.JSON,
        list[str]: sa.JSON,
        list[list[str]]: sa.JSON,
    }


# A run's folder has the name of its id; one invalid id would break every list of runs.
_NAMES_A_FOLDER = r"replace(replace(run_id, '/', ''), '\', '') = run_id AND run_id NOT IN ('', '.', '..')"


class RecordRow(Table):
    """Table `records`: one row for each launch, with its device, status, versions and settings."""

    __tablename__ = "records"

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    record_id: Mapped[str] = mapped_column(unique=True)
    run_id: Mapped[str] = mapped_column(sa.CheckConstraint(_NAMES_A_FOLDER), index=True)
    schema_version: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime]
    recipe_name: Mapped[str]
    recipe_digest: Mapped[str]
    bundle_digest: Mapped[str]
    compiled_digest: Mapped[str]
    target: Mapped[str]
    device_address: Mapped[str]
    device_family: Mapped[str]
    device_serial: Mapped[str]
    device_profile: Mapped[str]
    device_title: Mapped[str]
    device_soc_model: Mapped[str]
    device_cpu: Mapped[str]
    device_android_release: Mapped[str | None]
    device_fingerprint: Mapped[str | None]
    variant: Mapped[str]
    launch: Mapped[int] = mapped_column(sa.CheckConstraint("launch >= 0"))
    status: Mapped[str]
    error_class: Mapped[str | None]
    reason: Mapped[str | None] = mapped_column(sa.Text)
    caveats: Mapped[list[str]]
    versions: Mapped[dict[str, str]]
    settings: Mapped[dict[str, str]]
    state: Mapped[dict[str, str]]
    images: Mapped[dict[str, str]]


class SampleRow(Table):
    """Table `samples`: one row for each measured value of a launch."""

    __tablename__ = "samples"

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    record: Mapped[int] = mapped_column(sa.ForeignKey("records.id", ondelete="CASCADE"), index=True)
    metric: Mapped[str]
    value: Mapped[float] = mapped_column(sa.CheckConstraint("value BETWEEN -1e17 AND 1e17"))
    task: Mapped[str | None]
    component: Mapped[str | None]
    iteration: Mapped[int | None] = mapped_column(BIG, sa.CheckConstraint("iteration >= 0"))
    step: Mapped[int | None] = mapped_column(BIG, sa.CheckConstraint("step >= 0"))
    item: Mapped[str | None]
    is_warmup: Mapped[bool]
    labels: Mapped[dict[str, str]]


class KindsRow(Table):
    """Table `sample_kinds`: what the values of launches are, as JSON. Launches of equal plans share a row, which is kept."""

    __tablename__ = "sample_kinds"

    digest: Mapped[str] = mapped_column(primary_key=True)
    kinds: Mapped[str] = mapped_column(sa.Text)


class PackedRow(Table):
    """Table `packed_samples`: the samples of a launch again, in one row that reports read. Written with `samples`."""

    __tablename__ = "packed_samples"

    record: Mapped[int] = mapped_column(BIG, sa.ForeignKey("records.id", ondelete="CASCADE"), primary_key=True)
    kinds: Mapped[str] = mapped_column(sa.ForeignKey("sample_kinds.digest"))
    numbers: Mapped[bytes]
    readings: Mapped[str] = mapped_column(sa.Text)


class LeaseRow(Table):
    """Table `leases`: one row for each device. `job_*` columns describe a job's lease, `reserved_*` a person's reservation."""

    __tablename__ = "leases"

    device: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int] = mapped_column(sa.BigInteger)
    job_owner: Mapped[str | None]
    job_purpose: Mapped[str | None]
    job_until: Mapped[datetime | None]
    job_process: Mapped[str | None]
    reserved_owner: Mapped[str | None]
    reserved_purpose: Mapped[str | None]
    reserved_until: Mapped[datetime | None]


class FenceRow(Table):
    """Table `fences`: the number of the latest start of each farm job. Results of a job's earlier attempts are refused."""

    __tablename__ = "fences"

    job: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int] = mapped_column(sa.BigInteger)


class IdentityRow(Table):
    """Table `identity`: one row with this database's random name and the version of its schema. The name shows whether two
    connections use the same database.
    """

    __tablename__ = "identity"

    name: Mapped[str] = mapped_column(primary_key=True)
    schema_version: Mapped[int]


class PhoneRow(Table):
    """Table `devices`: one row for each phone in the farm's inventory."""

    __tablename__ = "devices"

    device: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str]
    serial: Mapped[str]
    state: Mapped[str]
    model: Mapped[str]
    profile: Mapped[str | None]
    chip: Mapped[str | None]
    android_release: Mapped[str | None]
    abi: Mapped[str | None]
    host: Mapped[str]
    last_seen: Mapped[datetime]
    health: Mapped[str]
    reason: Mapped[str | None] = mapped_column(sa.Text)
    failures: Mapped[int]
    good_jobs: Mapped[int]


class JobRow(Table):
    """Table `jobs`: one row per farm job: what it needs and does, the number of its attempts so far, and what came of it."""

    __tablename__ = "jobs"
    __table_args__ = (sa.Index("ix_jobs_state", "state", "submitted_at"),)

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    run_id: Mapped[str] = mapped_column(index=True)
    version: Mapped[str]
    kind: Mapped[str]
    needs: Mapped[str]
    owner: Mapped[str]
    submitted_at: Mapped[datetime]
    payload: Mapped[str] = mapped_column(sa.Text)
    affinity: Mapped[str]
    pool: Mapped[str] = mapped_column(server_default="")
    most_attempts: Mapped[int]
    attempt: Mapped[int]
    state: Mapped[str]
    is_stopping: Mapped[bool]
    seat: Mapped[str | None] = mapped_column(index=True)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(sa.Text)


class JobNeedRow(Table):
    """Table `job_needs`: dependencies between jobs. Each row says that the job `job` must wait until the job `needed` is done."""

    __tablename__ = "job_needs"

    job: Mapped[int] = mapped_column(BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    needed: Mapped[int] = mapped_column(BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True)


class AttemptRow(Table):
    """Table `attempts`: one row for each attempt at a farm job, with its times, its JSON answer and its last log lines."""

    __tablename__ = "attempts"

    job: Mapped[int] = mapped_column(BIG, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str]
    seat: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(sa.Text)
    answer: Mapped[str | None] = mapped_column(sa.Text)
    lines: Mapped[str | None] = mapped_column(sa.Text)


class NightRow(Table):
    """Table `nights`: one row for each nightly regression run. Column `planned` is a JSON list of [test case, device] pairs."""

    __tablename__ = "nights"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    version: Mapped[str]
    planned: Mapped[list[list[str]]]


class MeasurementRow(Table):
    """Table `night_measurements`: one row for each measurement of a test case on a device in a nightly regression run."""

    __tablename__ = "night_measurements"
    __table_args__ = (
        sa.UniqueConstraint("night", "case_name", "device", name="uq_night_measurements"),
        sa.Index("ix_night_measurements_series", "case_name", "device", "measured_at"),
    )

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    night: Mapped[str] = mapped_column(sa.ForeignKey("nights.id", ondelete="CASCADE"))
    case_name: Mapped[str]
    device: Mapped[str]
    address: Mapped[str]
    measured_at: Mapped[datetime]
    bundle: Mapped[str]
    kit: Mapped[str | None]
    yardstick: Mapped[str]
    environment: Mapped[dict[str, str]]
    comparison: Mapped[str]
    runs: Mapped[list[str]]
    caveats: Mapped[list[str]]


class PointRow(Table):
    """Table `night_points`: one row for each metric value, such as image time, of a nightly measurement."""

    __tablename__ = "night_points"
    __table_args__ = (sa.CheckConstraint(_RATIOS_ABOVE_0),)

    measurement: Mapped[int] = mapped_column(BIG, sa.ForeignKey("night_measurements.id", ondelete="CASCADE"), primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    yardstick: Mapped[float | None]
    ratio: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]


class RulingRow(Table):
    """Table `night_rulings`: one row per verdict on a metric of a nightly run. The newest verdict is valid; older rows stay."""

    __tablename__ = "night_rulings"
    __table_args__ = (
        sa.CheckConstraint(_RATIOS_ABOVE_0),
        sa.Index("ix_night_rulings_series", "case_name", "device", "night"),
    )

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    night: Mapped[str] = mapped_column(sa.ForeignKey("nights.id", ondelete="CASCADE"), index=True)
    case_name: Mapped[str]
    device: Mapped[str]
    address: Mapped[str]
    told_at: Mapped[datetime]
    kind: Mapped[str]
    cause: Mapped[str] = mapped_column(sa.Text)
    detector: Mapped[int]
    task: Mapped[str | None]
    key: Mapped[str | None]
    owner: Mapped[str | None]
    value: Mapped[float | None]
    expected: Mapped[float | None]
    ratio: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    last_good_bundle: Mapped[str | None]
    last_good_kit: Mapped[str | None]
    comparison: Mapped[str | None]
    since: Mapped[str | None]
    nights: Mapped[int | None]
    good_night: Mapped[str | None]


class AcknowledgementRow(Table):
    """Table `acknowledgements`: one row per accepted metric change, valid from nightly run `night` until the time `until`."""

    __tablename__ = "acknowledgements"

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    case_name: Mapped[str] = mapped_column(index=True)
    night: Mapped[str]
    reason: Mapped[str] = mapped_column(sa.Text)
    owner: Mapped[str]
    made_at: Mapped[datetime]
    until: Mapped[datetime]
    device: Mapped[str | None]
    task: Mapped[str | None]
    key: Mapped[str | None]


def create(connection: sa.Connection, name: str) -> None:
    """Create the tables in the open transaction, unless the database has them. `name` is for error messages."""
    if has_tables(connection, name):
        return
    Table.metadata.create_all(connection, checkfirst=False)
    connection.execute(sa.text(KPIS))
    connection.execute(sa.insert(IdentityRow).values(name=uuid.uuid4().hex, schema_version=SCHEMA_VERSION))


_OF_LAUNCH = (
    "'session_load_ns', 'adapter_load_ns', 'switch_ns', 'first_unet_ns', 'rom_bytes', 'peak_rss_bytes', 'load_peak_rss_bytes'"
)
_IS_TIME = "substr(s.metric, length(s.metric) - 2) = '_ns'"
_IS_MEMORY = "s.metric IN ('peak_rss_bytes', 'load_peak_rss_bytes', 'rss_bytes', 'pss_bytes', 'inference_peak_bytes')"
_CAVEATS = "CAST(r.caveats AS TEXT)"
_EMULATED = (
    f"({_CAVEATS} LIKE '%EMULATED_NPU%' AND {_IS_TIME}) OR ({_CAVEATS} LIKE '%EMULATED_CPU%' AND ({_IS_TIME} OR {_IS_MEMORY}))"
)
_KPI_KEY = "run_id, device_address, variant, task, component, metric, labels"
# One row for each figure of a run. Different labels are different figures: a cold adapter load is not a resident one. p50 is the
# median of the launch medians, as in the reports; for memory peaks it is the median of the launch maxima. Times of emulators,
# and the memory of a phone that is one, are left out, as they say nothing about any device.
KPIS = f"""
CREATE VIEW kpis AS
WITH kept AS (
    SELECT r.run_id, r.device_address, r.variant, s.task, s.component, s.metric, CAST(s.labels AS TEXT) AS labels,
           s.record, s.value,
           ROW_NUMBER() OVER (
               PARTITION BY s.record, s.task, s.component, s.metric, CAST(s.labels AS TEXT) ORDER BY s.value
           ) AS place,
           COUNT(*) OVER (PARTITION BY s.record, s.task, s.component, s.metric, CAST(s.labels AS TEXT)) AS n
    FROM samples s JOIN records r ON r.id = s.record
    WHERE r.status = 'OK' AND (s.metric IN ({_OF_LAUNCH}) OR NOT s.is_warmup) AND NOT ({_EMULATED})
), launches AS (
    SELECT {_KPI_KEY}, COUNT(*) AS n, MIN(value) AS minimum, SUM(value) AS total, MAX(value) AS maximum,
           CASE WHEN metric IN ('peak_rss_bytes', 'load_peak_rss_bytes') THEN MAX(value)
                ELSE AVG(CASE WHEN 2 * place BETWEEN n AND n + 2 THEN value END) END AS typical
    FROM kept
    GROUP BY record, {_KPI_KEY}
), placed AS (
    SELECT launches.*, ROW_NUMBER() OVER (PARTITION BY {_KPI_KEY} ORDER BY typical) AS place,
           COUNT(*) OVER (PARTITION BY {_KPI_KEY}) AS of_launches
    FROM launches
)
SELECT run_id, device_address AS device, task, variant, component, metric, labels,
       COUNT(*) AS launches, CAST(SUM(n) AS BIGINT) AS n, MIN(minimum) AS minimum, SUM(total) / SUM(n) AS mean,
       AVG(CASE WHEN 2 * place BETWEEN of_launches AND of_launches + 2 THEN typical END) AS p50,
       MAX(maximum) AS maximum
FROM placed
GROUP BY {_KPI_KEY}
"""


def has_tables(connection: sa.Connection, name: str) -> bool:
    """Return whether the database has quadbench's tables. Raise ArtifactError if they are of another schema version."""
    tables = sa.inspect(connection)
    if not tables.has_table(IdentityRow.__tablename__):
        return False
    has_version = any(column["name"] == "schema_version" for column in tables.get_columns(IdentityRow.__tablename__))
    version = connection.scalar(sa.text("SELECT schema_version FROM identity")) if has_version else "none"
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{name} has schema_version {version}; expected {SCHEMA_VERSION}",
            hint="use the version of quadbench that wrote it, or another database",
        )
    return True
