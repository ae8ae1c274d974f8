"""What each way to serve the tasks takes, as the report tells it."""

from pathlib import Path

from support.synthetic_run import make_run

from quadbench.artifacts import RunResult, Variant
from quadbench.report.kpi import kpi_rows
from quadbench.report.text_table import TextTable
from quadbench.report.ways import way_tables

THREE = (Variant.SHARED, Variant.PER_GRAPH, Variant.RESIDENT, Variant.RESIDENT, Variant.PER_GRAPH, Variant.SHARED)


def tables_of(result: RunResult) -> tuple[TextTable, ...]:
    return way_tables(result, kpi_rows(result))


def test_three_ways_stand_in_one_table_with_what_decides_between_them(tmp_path: Path) -> None:
    (table,) = tables_of(make_run(tmp_path, variants=THREE))
    assert [row[0].partition(":")[0] for row in table.rows] == ["shared", "per-graph", "resident"]
    columns = [column.partition(",")[0] for column in table.columns]
    assert columns == ["Way", "Image", "Switch", "Switch and first image", "Peak RAM"]
    shared, own, resident = ([float(cell) for cell in row[1:]] for row in table.rows)
    assert shared[1] < resident[1] * 1.1 < own[1]  # a switch chooses a binding, or a loaded graph; or it loads one
    assert resident[3] > own[3] > shared[3]
    more = round(resident[3] - shared[3])
    assert any(note == f"Keeping all graphs in memory takes {more} MB more than the shared graph." for note in table.notes)
    images = int((own[1] - shared[1]) / (shared[0] - own[0]))
    assert any(f"where a task paints at most {images} images before the next task comes" in note for note in table.notes)


def test_two_ways_are_compared_elsewhere(tmp_path: Path) -> None:
    assert tables_of(make_run(tmp_path, variants=(Variant.SHARED, Variant.PER_GRAPH))) == ()
