"""What each way to serve the tasks takes, as the report tells it."""

from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from support.sentences import says
from support.synthetic_run import make_run

from quadbench.artifacts import RunResult, StoredArtifact, Variant
from quadbench.artifacts.bundle import HeldOutScores, TrajectorySqnr
from quadbench.report.formatting import FigureTable, TextTable
from quadbench.report.html import render_html
from quadbench.report.kpi import kpi_rows
from quadbench.report.scores import task_pictures
from quadbench.report.serving_modes import fastest_modes, serving_modes
from quadbench.report.view import report_view, run_summary
from quadbench.results.layout import Layout

SHARED, OWN, RESIDENT, MERGED = Variant.SHARED, Variant.PER_GRAPH, Variant.RESIDENT, Variant.MERGED_AT_LOAD
THREE = (SHARED, OWN, RESIDENT, RESIDENT, OWN, SHARED)


def tables_of(result: RunResult) -> tuple[TextTable, ...]:
    return tuple(ways.table.text for ways in serving_modes(result, kpi_rows(result)))


def test_three_ways_stand_in_one_table_with_what_decides_between_them(tmp_path: Path) -> None:
    (table,) = tables_of(make_run(tmp_path, variants=THREE))
    assert [row[0].partition(":")[0] for row in table.rows] == ["shared", "per-graph", "resident"]
    columns = [column.partition(",")[0] for column in table.columns]
    times = ["Way", "Image", "Switch", "Switch and first image", "Peak RAM"]
    assert columns == [*times, "Files", "PSNR", "Worst PSNR", "SQNR of eps"]
    shared, own, resident = ([float(cell) for cell in row[1:5]] for row in table.rows)
    assert shared[1] < resident[1] * 1.1 < own[1]  # a switch chooses a binding, or a loaded graph; or it loads one
    assert resident[3] > own[3] > shared[3]
    more = round(resident[3] - shared[3])
    says(table.notes, more)
    images = int((own[1] - shared[1]) / (shared[0] - own[0]))
    says(table.notes, images, "per-graph")


def test_each_way_stands_with_the_likeness_of_its_own_pictures(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(SHARED, OWN, MERGED))
    judged = [
        TrajectorySqnr(task="t", variant=v.value, inputs=1, sqnr_db=db, steps=()) for v, db in ((SHARED, 40.0), (MERGED, 39.0))
    ]
    bundle = replace(result.bundle, held_out=HeldOutScores(inputs=1, trajectories=tuple(judged), clippings=()))
    result = replace(result, stored=StoredArtifact(artifact=bundle, folder=result.stored.folder))
    (ways,) = serving_modes(result, kpi_rows(result))
    fields = dict(zip(ways.table.fields, zip(*ways.table.values, strict=True), strict=True))
    for variant, mean_db, worst_db in zip(fields["way"], fields["psnr_db"], fields["worst_psnr_db"], strict=True):
        of_tasks: dict[str | None, list[float]] = {}
        for record in result.records:
            for sample in record.samples if record.variant == variant else ():
                if sample.metric == "psnr_db" and sample.labels["against"] == "reference":
                    of_tasks.setdefault(sample.task, []).append(sample.value)
        assert mean_db == pytest.approx(mean(mean(each) for each in of_tasks.values()))
        assert worst_db == min(value for each in of_tasks.values() for value in each)
    assert fields["eps_sqnr_db"] == (40.0, None, 39.0)
    assert [row[-1] for row in ways.table.text.rows] == ["40.0", "–", "39.0"]
    printed = run_summary(report_view(result, Layout(tmp_path)), None).ways
    assert [(row["way"], row["psnr_db"]) for row in printed] == list(zip(fields["way"], fields["psnr_db"], strict=True))


def test_pictures_of_every_way_that_ran_are_shown(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(SHARED, OWN, MERGED))
    labels = {
        picture.label
        for gallery in task_pictures(result, Layout(tmp_path))
        for item in gallery.shown
        for picture in item.pictures
    }
    assert {"Shared", "Per-graph", "Merged-at-load"} <= labels
    assert "Resident" not in labels


def test_two_ways_are_compared_elsewhere(tmp_path: Path) -> None:
    assert tables_of(make_run(tmp_path, variants=(SHARED, OWN))) == ()


def test_a_base_merged_at_load_is_a_way_of_its_own_and_each_way_is_a_curve(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(SHARED, OWN, MERGED))
    (ways,) = serving_modes(result, kpi_rows(result))
    assert [row[0].partition(":")[0] for row in ways.table.text.rows] == ["shared", "per-graph", "merged-at-load"]
    assert set(ways.curves) == {SHARED, OWN, MERGED}
    for curve in ways.curves.values():
        times = [time for _, time in curve]
        assert times == sorted(times, reverse=True)
    page = render_html(result, Layout(tmp_path))
    says(page)
    assert all(f">{variant}</text>" in page for variant in ways.curves)


@pytest.mark.parametrize("variant", [Variant.CONTEXT_SHARED, Variant.PATCHED])
def test_graphs_in_other_files_are_a_way_with_its_bytes(tmp_path: Path, variant: Variant) -> None:
    result = make_run(tmp_path, variants=(SHARED, OWN, variant))
    (ways,) = serving_modes(result, kpi_rows(result))
    sizes = dict(zip(*(_column(ways.table, name) for name in ("way", "files_mb")), strict=True))
    assert sizes == {"shared": 30.0, "per-graph": 64.0, variant.value: 64.0}
    says(ways.table.text.notes, "shared", f"{variant} {64 / 30:.2f}")
    assert variant in ways.curves


def test_the_strongest_opponents_of_each_kind_are_named(tmp_path: Path) -> None:
    (table,) = tables_of(make_run(tmp_path, variants=(SHARED, OWN, Variant.CONTEXT_SHARED)))
    says(table.notes, "Among ways with one U-Net in memory", "shared")


def _column(table: FigureTable, name: str) -> list[object]:
    place = table.fields.index(name)
    return [row[place] for row in table.values]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({SHARED: (11, 0), OWN: (10, 5)}, [(SHARED, 5), (OWN, None)]),
        ({SHARED: (11, 0), OWN: (12, 5)}, [(SHARED, None)]),
        ({SHARED: (13, 0), OWN: (10, 5), MERGED: (9, 20)}, [(SHARED, 1), (OWN, 15), (MERGED, None)]),
        ({SHARED: (13, 0), OWN: (10, 5), RESIDENT: (10, 0)}, [(RESIDENT, None)]),
        ({SHARED: (11, 0), OWN: (10, 5), MERGED: (9, 10)}, [(SHARED, 5), (MERGED, None)]),
    ],
)
def test_the_fastest_way_depends_on_how_often_tasks_are_switched(
    times: dict[Variant, tuple[float, float]], expected: list[tuple[Variant, int | None]]
) -> None:
    assert fastest_modes(times) == expected
