"""Tables and charts of the report: the same figures as text, CSV, Markdown, LaTeX and SVG."""

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from support.sentences import reads, says
from support.synthetic_run import S25, TABS11, make_run

from quadbench.artifacts import Caveat, RunRecord
from quadbench.report.chart import Bar, BarPart, Series, line_chart, nice_ticks, stacked_bars
from quadbench.report.formatting import Unit, decibels, number, show, times, to_csv, to_markdown
from quadbench.report.kpi import Figure, kpi_rows
from quadbench.report.provenance import versions
from quadbench.report.tables import KPI, component_tables, kpi_table, named_tables


def test_the_kpi_table_has_a_row_for_each_device_task_and_figure(tmp_path: Path) -> None:
    result = make_run(tmp_path, devices=(S25, TABS11))
    table = kpi_table(result)
    assert len(table.rows) == len(kpi_rows(result)) == 2 * 3 * 15
    assert {len(row) for row in table.rows} == {len(table.columns)} == {len(table.numeric)}
    says(table.notes)


def test_one_device_stands_in_the_title_rather_than_in_every_row(tmp_path: Path) -> None:
    table = kpi_table(make_run(tmp_path))
    says(table.title, "quickstart", "virtual:s25")
    assert table.columns[:4] == ("Task", "Figure", "Unit", "Shared")


def test_a_table_without_spread_fits_a_terminal(tmp_path: Path) -> None:
    table = kpi_table(make_run(tmp_path), is_whole=False)
    widths = [max(len(row[index]) for row in (table.columns, *table.rows)) for index in range(len(table.columns))]
    assert sum(widths) + 3 * len(widths) + 1 <= 100
    assert ("draw", "VAE encoder", "ms", "n/a", "n/a", "", "") in table.rows


def test_doubts_are_a_column_where_they_differ(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return replace(record, caveats=(Caveat.THROTTLED,)) if record.device == TABS11 else record

    table = kpi_table(make_run(tmp_path, devices=(S25, TABS11), change=change))
    assert (table.columns[0], table.columns[-1]) == ("Device", "Doubts")
    assert {(row[0], row[-1]) for row in table.rows} == {
        ("virtual:s25", "virtual device"), ("virtual:s25", ""), ("virtual:tabs11", "throttled"), ("virtual:tabs11", "")
    }  # fmt: skip


def test_csv_has_full_precision_and_a_note_where_there_is_no_figure(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    rows = {(row["task"], row["figure"]): row for row in csv.DictReader(io.StringIO(to_csv(named_tables(result, KPI))))}
    switch = next(row.shared for row in kpi_rows(result) if (row.task, row.key) == ("restyle", "switch"))
    assert isinstance(switch, Figure)
    assert float(rows["restyle", "switch"]["shared_median"]) == switch.value / 1e6
    assert rows["restyle", "switch"]["unit"] == "ms"
    assert rows["restyle", "foundation_rom"]["shared_median"] == "27.0"
    assert rows["draw", "vae_encoder"]["shared_median"] == ""
    says(rows["draw", "vae_encoder"]["note"])


def test_markdown_escapes_what_would_be_markup(tmp_path: Path) -> None:
    table = replace(kpi_table(make_run(tmp_path)), title="50% of a_b | <c>", rows=(("a|b", *["1"] * 8),))
    markdown = to_markdown(table)
    assert "| a\\|b | 1 |" in markdown
    assert "**50% of a\\_b \\| \\<c\\>**" in markdown


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.02149, "0.0215"), (0.1234, "0.123"), (1.2345, "1.23"), (12.345, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_numbers_have_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_units_are_milliseconds_and_mb_of_2_to_the_20_bytes() -> None:
    assert show(1_500_000, Unit.MILLISECONDS) == "1.50"
    assert show(3 * 2**20, Unit.MEGABYTES) == "3.00"
    assert (times(1.724), times(14.26), times(1999.4)) == ("1.72×", "14.3×", "1,999×")
    assert (decibels(38.04), decibels(99.0)) == ("38.0 dB", "≥ 99 dB")


def test_ticks_are_round_and_reach_the_highest_value() -> None:
    assert nice_ticks(197) == (0, 50, 100, 150, 200)
    assert nice_ticks(0.9)[-1] >= 0.9
    assert nice_ticks(0) == (0.0, 1.0)


def test_a_line_is_dashed_from_its_last_measured_point_on() -> None:
    line = Series(label="a & b", css_class="shared", colour="#000", points=((1, 1), (2, 2), (3, 3)), measured=2)
    svg = line_chart([line], title="<t>", x_label="x", y_label="y")
    solid, dashed = re.findall(r'<polyline[^>]* points="([^"]*)"', svg)
    assert (len(solid.split()), len(dashed.split())) == (2, 2)
    assert solid.split()[-1] == dashed.split()[0]
    assert svg.count("<circle") == 2
    assert "extrapolated" in svg
    assert "a &amp; b" in svg
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_bars_share_one_scale() -> None:
    def bar(value: float) -> Bar:
        return Bar(group="g", label="l", parts=(BarPart(label="p", css_class="c", colour="#000", value=value),), total_text="t")

    svg = stacked_bars([bar(10), bar(5)], title="t")
    long, short = (float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)" height="16"', svg))
    assert long == pytest.approx(2 * short, abs=0.02)


def test_libraries_that_run_graphs_stand_with_their_builds_and_the_systems_are_counted(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    loaded = {
        "library.libonnxruntime.so": "/kits/d/libonnxruntime.so, build id abcd",
        "library.libc.so": "/system/lib64/libc.so, build id none",
        "library.libm.so": "/system/lib64/libm.so, build id 12",
    }
    records = tuple(replace(record, versions=record.versions | loaded) for record in result.records)
    facts = {fact.name: fact.value for fact in versions(replace(result, records=records))}
    reads(facts["loaded libonnxruntime.so"])
    reads(facts["other loaded libraries"], 2)
    assert not any(name.startswith("library.") for name in facts)


def test_each_component_has_its_load_its_first_run_and_its_steady_run(tmp_path: Path) -> None:
    result = make_run(tmp_path)

    def cold(record: RunRecord) -> RunRecord:
        """The launch with a first run of the text encoder that took a second."""
        samples = list(record.samples)
        first = next(i for i, sample in enumerate(samples) if sample.metric == "text_encoder_ns")
        samples[first] = replace(samples[first], value=1e9)
        return replace(record, samples=tuple(samples))

    result = replace(result, records=tuple(map(cold, result.records)))
    table = component_tables(result)[0]
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    assert {component for component, _ in rows} == {"text_encoder", "vae_encoder", "unet", "vae_decoder"}
    load, first, steady = rows["text_encoder", "shared"]
    assert first == "1,000"
    assert 0 < float(steady) < 100
    assert float(load) > 0
    emulated = replace(result, records=tuple(replace(r, caveats=(Caveat.EMULATED_NPU,)) for r in result.records))
    assert component_tables(emulated) == ()
