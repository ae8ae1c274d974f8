"""Figures that others measured: files -> nights and their history, in weaker words; what is wrong in a file is named."""

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.errors import QuadbenchError, UserError
from quadbench.nightly.outside import MAX_ROWS, read_outside

PERF = Path(__file__).parent / "data" / "ai_hub" / "stable_diffusion_v1_5.perf.yaml"
HEAD = "case,device,time,value,unit"
ROW = "net,phone,2026-01-01,1.5,ms"


def written(folder: Path, *lines: str, name: str = "figures.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def slower(folder: Path, nights: int = 60, at: int = 40) -> Path:
    """A file of nights of which those from `at` on are 5 % slower, with other files."""
    noise = np.random.default_rng(0).normal(0, 0.01, nights)
    levels = 100 * np.exp(noise) * np.where(np.arange(nights) < at, 1, 1.05)
    rows = [
        f"net,phone,{date(2026, 1, 1) + timedelta(n)},{level:.4f},ms,{'new' if n >= at else 'old'}"
        for n, level in enumerate(levels)
    ]
    return written(folder, HEAD + ",files", *rows)


def test_a_step_in_a_file_is_told_with_its_files_and_in_weaker_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "net", "--from", str(slower(tmp_path))]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    says(last, "net", "2026-02-10", "5.6", "old", "new")


def test_the_page_of_a_file_calls_a_change_a_seeming_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["history", "--from", str(slower(tmp_path)), "--html", str(page)]) == 0
    assert "Time seems 5.6 % slower than before on phone since 2026-02-10" in page.read_text()
    assert "seems 5.6 % slower" in capsys.readouterr().out


def test_a_name_that_is_markup_is_text_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    path = written(
        tmp_path, HEAD, "<script>x</script>,<b>phone</b>,2026-01-01,1.5,ms", "<script>x</script>,<b>phone</b>,2026-01-02,1.5,ms"
    )
    assert main(["history", "--from", str(path), "--html", str(page)]) == 0
    assert "<script>x" not in page.read_text()
    assert "<b>phone" not in page.read_text()


@pytest.mark.parametrize("name", ["figures.json", "figures.parquet"])
def test_other_formats_give_the_same_nights_as_csv(name: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = slower(tmp_path)
    table = pd.read_csv(path)
    other = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(other)
    else:
        other.write_text(json.dumps(table.to_dict("records")))
    assert read_outside([other]).series == read_outside([path]).series


def test_a_sample_that_is_carried_over_counts_once_when_it_first_occurs(tmp_path: Path) -> None:
    rows = (f"net,phone,2026-01-{day:02},1.5,ms,job-{(day - 1) // 5}" for day in range(1, 21))
    outside = read_outside([written(tmp_path, HEAD + ",sample", *rows)])
    assert [night.night for night in outside.series[0]] == ["2026-01-01", "2026-01-06", "2026-01-11", "2026-01-16"]
    assert outside.repeated == 16


def test_values_of_one_time_are_launches_whose_median_counts(tmp_path: Path) -> None:
    rows = (f"net,phone,2026-01-01T03:00Z,{value},ms" for value in (1, 2, 9))
    ((night,),) = read_outside([written(tmp_path, HEAD, *rows)]).series
    assert (night.points[0].value, night.measured_at) == (2e6, datetime(2026, 1, 1, 3, tzinfo=UTC))


def test_a_change_with_few_nights_is_a_weak_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "net", "--from", str(slower(tmp_path, nights=24, at=20))]) == 0
    says(capsys.readouterr().out.strip().splitlines()[-1], "a weak sign: 4 nights since")


@pytest.mark.parametrize("name", ["sample", "sample_id", "sample id"])
def test_the_column_of_samples_has_three_names(name: str, tmp_path: Path) -> None:
    rows = [
        {"case": "net", "device": "phone", "time": f"2026-01-0{day}", "value": 1.5, "unit": "ms", name: "a"} for day in (1, 2)
    ]
    files = written(tmp_path, json.dumps(rows), name="figures.json"), tmp_path / "figures.csv", tmp_path / "figures.parquet"
    pd.DataFrame(rows).to_csv(files[1], index=False)
    pd.DataFrame(rows).to_parquet(files[2])
    assert [read_outside([file]).repeated for file in files] == [1, 1, 1]


def test_two_columns_of_samples_are_refused(tmp_path: Path) -> None:
    row = {"case": "net", "device": "phone", "time": "2026-01-01", "value": 1.5, "unit": "ms", "sample": "a", "sample_id": "b"}
    with raising(UserError, "figures.json", "row 1"):
        read_outside([written(tmp_path, json.dumps([row]), name="figures.json")])
    with raising(UserError, "figures.csv", "sample"):
        read_outside([written(tmp_path, HEAD + ",sample,sample_id", ROW + ",a,b")])


def test_a_perf_file_of_ai_hub_is_read_and_its_jobs_count_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{day}-stable_diffusion_v1_5.perf.yaml" for day in ("2026-01-05", "2026-02-11")]
    for path in paths:
        shutil.copy(PERF, path)
    outside = read_outside(paths)
    assert outside.repeated == len(outside.series) == 5
    assert {night.night for series in outside.series for night in series} == {"2026-01-05"}
    night = next(series[0] for series in outside.series if "precompiled" in series[0].case)
    assert night.case == "stable_diffusion_v1_5 w8a16 text_encoder precompiled_qnn_onnx"
    assert night.environment["environment"].startswith("qairt 2.42")


WRONG: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "nan": ("a.csv", (HEAD, "net,phone,2026-01-01,nan,ms"), ("row 2", "'value'")),
    "huge exponent": ("a.csv", (HEAD, ROW, "net,phone,2026-01-02,1e400,ms"), ("row 3", "'value'")),
    "tiny": ("a.csv", (HEAD, ROW, "net,phone,2026-01-02,1e-308,ms"), ("row 3", "'value'")),
    "no date": ("a.csv", (HEAD, "net,phone,20260101,1,ms"), ("row 2", "'time'")),
    "year": ("a.csv", (HEAD, "net,phone,0001-01-01T00:00+14:00,1,ms"), ("row 2", "'time'")),
    "unknown unit": ("a.csv", (HEAD, "net,phone,2026-01-01,1,h"), ("row 2", "'unit'")),
    "mixed units": ("a.csv", (HEAD, ROW, "net,phone,2026-01-02,1,s"), ("row 3", "row 2", "'unit'")),
    "duplicate column": ("a.csv", (HEAD + ",value", ROW + ",2"), ("a column twice", "'value'")),
    "unknown column": ("a.csv", (HEAD + ",x", ROW + ",2"), ("'x'",)),
    "missing column": ("a.csv", ("case,device", "net,phone"), ("'time'",)),
    "ragged": ("a.csv", (HEAD, ROW, "net,phone"), ("row 3", "2 cells")),
    "open quote": ("a.csv", (HEAD, '"net,phone'), ("row 2",)),
    "no rows": ("a.csv", (HEAD,), ("no rows",)),
    "too many rows": ("a.csv", (HEAD, *[ROW] * (MAX_ROWS + 1)), (str(MAX_ROWS),)),
    "long text": ("a.csv", (HEAD, f"{'n' * 301},phone,2026-01-01,1,ms"), ("row 2", "'case'")),
    "two values of a sample": ("a.csv", (HEAD + ",sample", ROW + ",j", "net,phone,2026-01-02,2,ms,j"), ("row 3", "row 2", "'j'")),
    "no list": ("a.json", ('{"case": 1}',), ("no list",)),
    "deep": ("a.json", ("[" * 100_000,), ("nested too deeply",)),
    "truth as a number": (
        "a.json",
        ('[{"case": "n", "device": "p", "time": "2026-01-01", "value": true, "unit": "ms"}]',),
        ("row 1", "'value'"),
    ),
    "no Parquet": ("a.parquet", ("PAR1",), ("not Parquet",)),
    "other ending": ("a.txt", ("",), ("'.txt'",)),
    "undated perf.yaml": ("perf.yaml", ("a: 1",), ("no date",)),
    "bomb": ("2026-01-01-m.perf.yaml", ("a: &a [1]", "b: *a"), ("alias",)),
    "no times": ("2026-01-01-m.perf.yaml", ("precisions: [1]",), ("holds no time",)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_in_a_file_is_named_with_its_place(kind: str, tmp_path: Path) -> None:
    name, lines, words = WRONG[kind]
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(QuadbenchError) as caught:
        read_outside([written(tmp_path, *lines, name=name)])
    assert name in caught.value.message
    assert [word for word in words if word not in caught.value.message] == []


@pytest.mark.parametrize("words", [["--acknowledge", "why", "--until", "30d"], ["--bisect", "a", "b"]])
def test_what_needs_stored_nights_is_refused_for_files(words: list[str], tmp_path: Path) -> None:
    assert main(["history", "net", "--from", str(slower(tmp_path)), *words]) == 2


def test_a_long_text_in_every_row_of_parquet_is_held_once(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "long.parquet"
    times = pd.date_range("2026-01-01", periods=2000)
    pd.DataFrame({"case": "n" * 1_000_000, "device": "p", "time": times, "value": 1.0, "unit": "ms"}).to_parquet(path)
    with raising(UserError):
        read_outside([path])


def test_a_parquet_column_of_dates_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "dates.parquet"
    table = {"case": "n", "device": "p", "time": [date(2026, 1, 1), date(2026, 1, 2)], "value": 1.0, "unit": "ms"}
    pd.DataFrame(table).to_parquet(path)
    assert [night.night for night in read_outside([path]).series[0]] == ["2026-01-01", "2026-01-02"]


@pytest.mark.parametrize("kind", ["text", "time"])
def test_a_parquet_column_that_python_cannot_hold_is_refused(kind: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    path, count = tmp_path / "strange.parquet", 2
    times = pa.array([2**52] * count, pa.timestamp("ms")) if kind == "time" else ["2026-01-01", "2026-01-02"]
    table = pa.table(
        {"case": ["name"] * count, "device": ["p"] * count, "time": times, "value": [1.0] * count, "unit": ["ms"] * count}
    )
    pytest.importorskip("pyarrow.parquet").write_table(table, path, use_dictionary=False, compression="none")
    if kind == "text":
        path.write_bytes(path.read_bytes().replace(b"name", b"nam\xff"))
    with raising(UserError):
        read_outside([path])
