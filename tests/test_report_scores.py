"""Scores become tables for a terminal and the report, with what they are and why some are absent."""

from dataclasses import replace
from pathlib import Path

from support.sentences import reads, says
from support.synthetic_run import make_run

from quadbench.artifacts.bundle import HeldOutScores, StepSqnr, TrajectorySqnr
from quadbench.artifacts.run_record import BetterDirection, ImageComparison, Metric, RunScores, Score
from quadbench.report.html import render_html
from quadbench.report.scores import emulated_tables, score_notes, score_tables
from quadbench.results.layout import Layout

PSNR = Metric(name="psnr", title="PSNR", unit="dB", better=BetterDirection.HIGHER, definition="Of 8-bit RGB.")
SSIM = Metric(name="ssim", title="SSIM", unit="", better=BetterDirection.HIGHER, definition="Structural similarity.")
LPIPS = Metric(name="lpips", title="LPIPS", unit="", better=BetterDirection.LOWER, definition="Perceptual distance.")
EPS = Metric(name="eps_sqnr", title="SQNR of eps", unit="dB", better=BetterDirection.HIGHER, definition="Over U-Net runs.")


def compared(device: str | None, images: str, against: str, *scores: Score) -> ImageComparison:
    return ImageComparison(task="restyle", device=device, made=images, against=against, scores=scores)


def scores_of_a_run() -> RunScores:
    absent = Score(metric=LPIPS, value="no weights", n=8)
    return RunScores(
        compared=(
            compared(None, "reference", "truth", Score(metric=PSNR, value=20.0, n=8), absent),
            compared(
                "s25", "shared", "reference", Score(metric=PSNR, value=41.84, n=8), Score(metric=SSIM, value=0.98765, n=8), absent
            ),
            compared("tabs11", "shared", "reference", Score(metric=PSNR, value=40.0, n=7), absent),
            compared(None, "shared", "reference", Score(metric=EPS, value=33.3, n=64)),
        )
    )


def test_each_task_and_device_has_a_table_with_what_no_device_made():
    tables = score_tables(scores_of_a_run())
    assert [table.title for table in tables] == ["restyle on s25", "restyle on tabs11"]
    assert tables[0].columns == ("Metric", "Float vs truth", "Shared vs float", "n")


def test_a_row_is_a_metric_with_its_unit_direction_and_n():
    rows = score_tables(scores_of_a_run())[0].rows
    assert rows == (
        ("PSNR, dB ↑", "20.0", "41.8", "8"),
        ("SSIM ↑", "", "0.9877", "8"),
        ("SQNR of eps, dB ↑", "", "33.3", "64"),
    )


def test_unlike_numbers_of_images_are_all_named():
    assert score_tables(scores_of_a_run())[1].rows[0] == ("PSNR, dB ↑", "20.0", "40.0", "8 / 7")


def test_a_figure_is_defined_and_an_absent_one_has_its_reason_once():
    notes = score_notes(scores_of_a_run())
    assert "PSNR: Of 8-bit RGB." in notes
    reads([note for note in notes if "LPIPS" in note], "LPIPS")


def test_the_report_shows_the_scores_of_a_run_that_has_some(tmp_path: Path):
    result = make_run(tmp_path)
    without = render_html(result, Layout(tmp_path))
    page = render_html(replace(result, scores=scores_of_a_run()), Layout(tmp_path))
    says(page, "<th", "scope=", "↑</th>", "LPIPS")
    assert "SQNR" not in without


def test_a_report_shows_the_emulated_htp_step_by_step_with_its_worst_step(tmp_path: Path):
    steps = tuple(StepSqnr(step=i, timestep=900.0 - i, sqnr_db=db) for i, db in enumerate((72.2, 68.0, 61.2, 63.0)))
    names = ("HTP against CPU", "HTP against float", "CPU against float")
    judged = tuple(TrajectorySqnr(task="restyle", variant=name, inputs=1, sqnr_db=66.0, steps=steps) for name in names)
    scores = RunScores(compared=(), emulated={"qnn-v79-69": HeldOutScores(inputs=1, trajectories=judged, clippings=())})
    (table,) = emulated_tables(scores)
    reads(table.title, "qnn-v79-69")
    assert table.rows[0] == ("restyle", "HTP against CPU", "66.0", "61.2", "3 of 4", "72.2", "63.0")
    page = render_html(replace(make_run(tmp_path), scores=scores), Layout(tmp_path))
    says(page, "restyle", "qnn-v79-69")
    assert [page.count(f'polyline class="{place}"') >= 2 for place in ("shared", "per-graph", "third")] == [True] * 3
