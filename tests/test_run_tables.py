"""Tables of a run: one object each, written as text, CSV, Markdown, LaTeX and HTML, and for pandas, all with the same figures."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.sentences import raising, reads, says
from support.stored_run import RUN, stored_below
from support.synthetic_run import ABBA, S25, TABS11, make_run

import quadbench
from quadbench.artifacts import RunResult, Variant
from quadbench.cli import main
from quadbench.errors import UnknownNameError, UserError
from quadbench.report.formatting import FigureTable, TextTable, to_csv, to_frame, to_markdown
from quadbench.report.tables import TABLE_NAMES, named_tables
from quadbench.results.layout import Layout

HOSTILE = '=1+1 & \\input{x} | <b>y</b> [z] *a* _b_ $c$ #d %e ~f ^g `h` "i" 步 {j} @k'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    variants = (*ABBA * 6, Variant.RESIDENT)
    return make_run(tmp_path_factory.mktemp("run"), devices=(S25, TABS11), variants=variants, items=1, iterations=3)


@pytest.fixture(scope="module", params=TABLE_NAMES)
def tables(request: pytest.FixtureRequest, run: RunResult) -> tuple[FigureTable, ...]:
    return named_tables(run, request.param)


def test_every_table_has_as_many_cells_as_columns_in_each_row(tables: tuple[FigureTable, ...]) -> None:
    for table in tables:
        assert table.values
        assert {len(row) for row in table.values} == {len(table.fields)}
        assert {len(row) for row in table.text.rows} == {len(table.text.columns)}
        assert len(table.text.rows) == len(table.values)
        assert tables[0].fields == table.fields


def test_csv_and_pandas_have_every_value_in_full(tables: tuple[FigureTable, ...]) -> None:
    frame = to_frame(tables)
    read = pd.read_csv(io.StringIO(to_csv(tables)))
    assert list(read.columns) == list(frame.columns)
    for name in frame.columns:
        if pd.api.types.is_float_dtype(frame[name]):
            assert read[name].tolist() == pytest.approx(frame[name].tolist(), rel=0, abs=0, nan_ok=True)


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A results folder with a run, in which nothing is written."""
    return stored_below(tmp_path_factory.mktemp("stored"))


def hostile() -> TextTable:
    return TextTable(
        title=HOSTILE, columns=(HOSTILE, "b"), numeric=(False, True), rows=((HOSTILE, "1"), ("[2]", "*")), notes=(HOSTILE,)
    )


def test_no_text_is_markup_in_any_format() -> None:
    table = hostile()
    markdown = to_markdown(table)
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")] == [3] * 4
    assert not re.search(r"(?<!\\)[<`*_\[$](?!\*)", markdown.replace("**", ""))
    figures = FigureTable(text=table, fields=("a",), values=((HOSTILE,), ("-1",), (-1.5,)))
    assert [row[0][:4] for row in csv.reader(io.StringIO(to_csv([figures])))] == ["a", "'=1+", "-1", "-1.5"]


def test_intervals_stand_beside_each_ratio_once_blocks_are_enough(run: RunResult) -> None:
    s25, tabs11 = named_tables(run, "comparison")
    reads(s25.text.title, "virtual:s25")
    frame = to_frame((s25, tabs11))
    assert set(frame.device) == {"virtual:s25", "virtual:tabs11"}
    assert ((frame.ratio_low <= frame.ratio) & (frame.ratio <= frame.ratio_high)).all()
    switch = next(row for row in s25.text.rows if row[:2] == ("restyle", "Switch to this task"))
    assert re.fullmatch(r"[\d,.]+× – [\d,.]+×", switch[4])
    assert switch[-1] == "BETTER"


def test_a_table_that_a_run_has_nothing_for_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    alone = make_run(tmp_path, variants=(Variant.SHARED, Variant.PER_GRAPH))
    with raising(UserError, "comparison", "measure.launches"):
        named_tables(alone, "comparison")
    with raising(UserError, "ways"):
        named_tables(alone, "ways")
    with raising(UnknownNameError, "kpis", "quad-table-1"):
        named_tables(alone, "kpis")


def test_any_table_of_the_paper_stands_beside_any_run(run: RunResult) -> None:
    (table,) = named_tables(run, "quad-table-2")
    says(table.text.title, 2, "1.1")
    reads(set(to_frame([table]).why_not))
    tasks = tuple(replace(task, name="text-to-image") if task.name == "draw" else task for task in run.bundle.tasks)
    renamed = replace(run, stored=replace(run.stored, artifact=replace(run.bundle, tasks=tasks)))
    (third,) = named_tables(renamed, "quad-table-3")
    assert "not measured" in set(to_frame([third]).why_not)


@pytest.mark.parametrize("written_as", ["table", "csv", "markdown"])
def test_the_command_prints_one_table_in_each_format(
    old_run: Layout, written_as: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", RUN, "--results", str(old_run.root), "--table", "quad-table-3", "--format", written_as]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert ("quad-table-3" if written_as == "csv" else "Beside table 3") in printed.replace("\n", " ")
    assert not old_run.report(RUN).exists()
    assert main([*words[:5], "kpi", "--json"]) == 2


def test_python_has_each_table_as_one_of_pandas(old_run: Layout) -> None:
    frame = quadbench.figures(RUN, results=old_run.root)
    assert {"device", "task", "figure", "shared_median", "ratio"} <= set(frame.columns)
    assert len(quadbench.figures(table="quad-table-1", results=old_run.root)) == 8
