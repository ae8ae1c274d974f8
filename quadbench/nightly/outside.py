"""Performance figures that others measured, read from CSV, Parquet, JSON or AI Hub's perf.yaml, as nights of cases on devices."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from quadbench.artifacts.night_record import Measurement, Point, Subject
from quadbench.errors import UserError, package_hint, quote, requires_package
from quadbench.spec import first_problem, read_file, read_json
from quadbench.spec.yaml_document import read_document

MAX_ROWS = 200_000
MAX_SERIES = 1_000  # pairs of case and device
_YEARS = 1970, 2200
_MAX_TEXT = 300  # characters of a cell
_BATCH = 1000  # rows of Parquet that become Python's values at once
_MAX_PARQUET_BYTES = 256 * 2**20  # of columns that are not compressed
_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
_BYTES = {"bytes": 1.0, "KB": 2.0**10, "MB": 2.0**20, "GB": 2.0**30}  # as in reports, 1 MB = 2^20 bytes
_COLUMNS = ("case", "device", "time", "value", "unit", "files", "environment", "sample")
_REQUIRED = _COLUMNS[:5]
_ALSO = {"sample id": "sample", "sample_id": "sample"}  # other names of columns
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(Z|[+-][0-9:]+)?)?")
_DATED_FILE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[-_.](.+?)(\.perf)?\.ya?ml")
HINT = "docs/history.md#figures-from-elsewhere describes the files"


def _is_date(value: object) -> object:
    if isinstance(value, str) and not _DATE.fullmatch(value):
        raise ValueError("expected a date as 2026-02-11 or 2026-02-11T03:00Z")
    if not isinstance(value, (str, date)):
        raise ValueError("expected text with a date as 2026-02-11")
    return value


def _is_near(time: datetime) -> datetime:
    if not _YEARS[0] <= time.year <= _YEARS[1]:
        raise ValueError(f"expected a year from {_YEARS[0]} to {_YEARS[1]}")
    return time


def _is_no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, found true or false")
    return value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


_Text = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]
_Words = Annotated[Annotated[str, Field(max_length=_MAX_TEXT)] | None, BeforeValidator(_none_if_empty)]


class OutsideSample(BaseModel):
    """A figure of a case on a device at a time, as one row of a file states it. `sample` is the name of the measurement."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: _Text
    device: _Text
    time: Annotated[datetime, BeforeValidator(_is_date), AfterValidator(_is_near)]
    value: Annotated[float, BeforeValidator(_is_no_bool), Field(gt=0, ge=1e-18, le=1e18, allow_inf_nan=False)]
    unit: Literal["ns", "us", "ms", "s", "bytes", "KB", "MB", "GB"]
    files: _Words = None
    environment: _Words = None
    sample: _Words = None


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A sample with its place in a file, such as `perf.csv: row 7`."""

    place: str
    sample: OutsideSample


@dataclass(frozen=True, kw_only=True)
class OutsideFigures:
    """Figures from files: nights of each case and device, oldest first, and how many rows repeated an earlier sample."""

    series: tuple[tuple[Measurement, ...], ...]
    repeated: int


def read_outside(paths: Sequence[Path]) -> OutsideFigures:
    """Read performance figures that others measured from files. Each time of a case on a device becomes a night.

    Several values of one time are several launches; their median counts. A sample that occurs again is the same measurement,
    and counts once, when it first occurs.

    Raises:
        UserError: a file cannot be read or used; the message names the file, and row and column if there are any.
        MissingDependencyError: pyarrow is missing, which Parquet needs.
    """
    rows = list[_Row]()
    for path in paths:
        rows += _rows(path)
        if len(rows) > MAX_ROWS:
            raise UserError(f"'{path}': more than {MAX_ROWS} rows in all; expected fewer", hint="give the latest rows alone")
    if not rows:
        raise UserError(f"{', '.join(map(repr, map(str, paths)))}: no rows; expected at least one", hint=HINT)
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row.sample.case, row.sample.device), []).append(row)
    if len(groups) > MAX_SERIES:
        raise UserError(f"{len(groups)} pairs of case and device; expected at most {MAX_SERIES}", hint="give fewer cases")
    counted = [_without_repeated(group) for group in groups.values()]
    repeated = len(rows) - sum(map(len, counted))
    return OutsideFigures(series=tuple(tuple(_nights(group)) for group in counted), repeated=repeated)


def _rows(path: Path) -> Iterator[_Row]:
    match path.suffix.lower():
        case ".csv":
            return _checked(path, _csv_rows(path))
        case ".json":
            return _checked(path, _json_rows(path))
        case ".parquet":
            return _checked(path, _parquet_rows(path))
        case ".yaml" | ".yml":
            return _checked(path, _perf_rows(path))
    raise UserError(f"'{path}' ends with {quote(path.suffix)}; expected .csv, .parquet, .json or .yaml", hint=HINT)


def _checked(path: Path, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[_Row]:
    """Yield the rows of a file as samples. A row comes with its place in the file, such as `row 7`."""
    adapter = TypeAdapter(OutsideSample)
    for number, (place, row) in enumerate(rows):
        if number == MAX_ROWS:
            raise UserError(f"'{path}': more than {MAX_ROWS} rows; expected fewer", hint="give the latest rows alone")
        named = {_ALSO.get(name, name): value for name, value in row.items()}
        if len(named) < len(row):
            raise UserError(f"'{path}', {place} has a sample twice; expected it at most once", hint=HINT)
        try:
            yield _Row(place=f"'{path}', {place}", sample=adapter.validate_python(named))
        except ValidationError as error:
            column = str(error.errors(include_url=False)[0]["loc"][0])
            given = f", found {quote(str(named[column]))}" if column in named else ""
            reason = first_problem(error).partition(": ")[2]
            raise UserError(f"'{path}', {place}, column {quote(column)}: {reason}{given}", hint=HINT) from error


def _require_columns(path: Path, given: Sequence[str]) -> None:
    names = [_ALSO.get(name, name) for name in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    unknown = sorted(set(names) - set(_COLUMNS))
    missing = [name for name in _REQUIRED if name not in names]
    for what, wrong in (("twice", twice), ("that is not known", unknown)):
        if wrong:
            expected = f"expected each of {', '.join(_COLUMNS)} at most once"
            raise UserError(f"'{path}' has a column {what}: {quote(wrong[0])}; {expected}", hint=HINT)
    if missing:
        raise UserError(f"'{path}' has no column {quote(missing[0])}; expected {', '.join(_REQUIRED)}", hint=HINT)


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = read_file(path, fault=UserError, hint=HINT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8: byte {error.start}", hint="save the file as UTF-8") from error
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(lines, [])
        _require_columns(path, names)
        for cells in lines:
            if cells and len(cells) != len(names):
                counts = f"found {len(cells)} cells, expected {len(names)}"
                raise UserError(f"'{path}', row {lines.line_num}: {counts}", hint=HINT)
            if cells:
                yield f"row {lines.line_num}", dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"'{path}', row {lines.line_num}: not CSV: {error}", hint=HINT) from error


def _json_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = read_json(path, fault=UserError, hint=HINT)
    if not isinstance(rows, list):
        raise UserError(f"'{path}' holds no list; expected a list of objects, one for each figure", hint=HINT)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"'{path}', row {number}: expected an object with {', '.join(_REQUIRED)}", hint=HINT)
        yield f"row {number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    content = read_file(path, fault=UserError, hint=HINT)
    with requires_package("a Parquet file", hint=package_hint("pyarrow")):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        names = pq.read_schema(io.BytesIO(content)).names
        _require_columns(path, names)
        # Texts stay in their dictionaries: a long text in every row is then held once.
        texts = [name for name in names if name not in ("time", "value")]
        file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        size_bytes = sum(group.total_byte_size for group in groups)
        if file.metadata.num_rows > MAX_ROWS or size_bytes > _MAX_PARQUET_BYTES:
            size = f"{file.metadata.num_rows} rows of {size_bytes} bytes"
            raise UserError(f"'{path}' has {size}; expected at most {MAX_ROWS} rows of {_MAX_PARQUET_BYTES} bytes", hint=HINT)
        rows = (row for batch in file.read().to_batches(max_chunksize=_BATCH) for row in batch.to_pylist())
        yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:  # a column of columns, text, a time
        raise UserError(f"'{path}' is not Parquet: {error}", hint=HINT) from error


def _perf_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the figures of a perf.yaml of AI Hub's models, whose file name begins with its date: 2026-02-11-NAME.perf.yaml."""
    dated = _DATED_FILE.fullmatch(path.name)
    if not dated:
        raise UserError(f"'{path}' has no date in its name; expected a name as 2026-02-11-NAME.perf.yaml", hint=HINT)
    document = read_document(path)
    document.raise_problems()
    time, model, _ = dated.groups()
    measured = [one for one in _results(document.data) if one[1].get("inference_time_milliseconds") is not None]
    for (precision, component, device, runtime), result in measured:
        where = ("precisions", precision, "components", component, "performance_metrics", device, runtime)
        row = {
            "case": " ".join((model, precision, component, runtime)),
            "device": device,
            "time": time,
            "value": result["inference_time_milliseconds"],
            "unit": "ms",
            "environment": ", ".join(f"{name} {text}" for name, text in _mapping(result.get("tool_versions")).items()),
            "sample": result.get("job_id"),
        }
        yield f"line {document.line_of(where)}", row
    if not measured:
        expected = "expected precisions, components, performance_metrics with inference_time_milliseconds"
        raise UserError(f"'{path}' holds no time; {expected}", hint=HINT)


def _results(data: Any) -> Iterator[tuple[tuple[str, str, str, str], Mapping[str, Any]]]:
    """Yield (precision, component, device, runtime) and the result of each measurement in a perf.yaml."""
    for precision, parts in _mapping(_mapping(data).get("precisions")).items():
        for component, part in _mapping(_mapping(parts).get("components")).items():
            for device, runtimes in _mapping(_mapping(part).get("performance_metrics")).items():
                for runtime, result in _mapping(runtimes).items():
                    yield (precision, component, device, runtime), _mapping(result)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _without_repeated(rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows of a case on a device by time, each sample once.

    Raises:
        UserError: a sample has two values, or the case has two units.
    """
    ordered = sorted(rows, key=lambda row: _in_utc(row.sample.time))
    first = ordered[0]
    seen, kept = dict[str, _Row](), list[_Row]()
    for row in ordered:
        if row.sample.unit != first.sample.unit:
            units = f"found {row.sample.unit}, but {first.sample.unit} in {first.place}"
            raise UserError(f"{row.place}, column 'unit': {units}; expected one unit for a case on a device", hint=HINT)
        name = row.sample.sample
        if name is not None and name in seen:
            if seen[name].sample.value != row.sample.value:
                values = f"{row.sample.value:g}, but {seen[name].sample.value:g} in {seen[name].place}"
                raise UserError(f"{row.place}, column 'value': sample {quote(name)} is {values}; expected one value", hint=HINT)
            continue
        if name is not None:
            seen[name] = row
        kept.append(row)
    return kept


def _nights(rows: Sequence[_Row]) -> Iterator[Measurement]:
    """Yield a night for each time of a case on a device. `rows` are in order of time."""
    by_time: dict[datetime, list[_Row]] = {}
    for row in rows:
        by_time.setdefault(_in_utc(row.sample.time), []).append(row)
    for time, of_time in by_time.items():
        first = of_time[0].sample
        for row in of_time:
            for column in ("files", "environment"):
                if getattr(row.sample, column) != getattr(first, column):
                    differs = f"differs from {of_time[0].place}, which has the same time"
                    raise UserError(f"{row.place}, column '{column}': {differs}", hint=HINT)
        unit_ns, unit_bytes = _NS.get(first.unit), _BYTES.get(first.unit)
        value = median(row.sample.value for row in of_time) * (unit_ns or unit_bytes or 1.0)
        is_day = (time.hour, time.minute, time.second, time.microsecond) == (0, 0, 0, 0)
        yield Measurement(
            night=f"{time:%Y-%m-%d}" if is_day else time.isoformat(),
            case=first.case,
            device=first.device,
            address=first.device,
            measured_at=time,
            subject=Subject(bundle=first.files or "not known"),
            yardstick="none",
            environment={"environment": first.environment} if first.environment else {},
            comparison="",  # nothing was launched in turn
            runs=("", ""),
            caveats=(),
            points=(Point(task="", key="time" if unit_ns else "size", value=value),),
        )


def _in_utc(time: datetime) -> datetime:
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
