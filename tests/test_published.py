"""Published figures: the right row stands beside a measured one."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.hand_made import EVEN, point, sweep_of
from support.scripted_harness import World
from support.sentences import reads, says
from support.stored_run import RUN, store_run
from support.synthetic_run import S25, make_run

import quadbench
from quadbench.artifacts import RunResult
from quadbench.cli import main
from quadbench.errors import UnknownNameError
from quadbench.recipe.published import published_names, published_table
from quadbench.recipe.recipe import RECIPES_FOLDER, load_recipe
from quadbench.report.formatting import to_frame
from quadbench.report.kpi import kpi_rows
from quadbench.report.run_line import study_json
from quadbench.report.scores import quality_rows
from quadbench.report.tables import MeasuredRun, PublishedFigure, paper_table, published_figures

PAPER = sorted(path.stem for path in RECIPES_FOLDER.glob("paper-table*.yaml"))


def test_a_row_is_found_by_task_and_device() -> None:
    table = published_table("quad-table-2")
    figures = [
        table.figure("unet_step_ms", task="object-removal", device=device) for device in ("s25", "s25-exynos", "tabs11", "local")
    ]
    assert figures == [249, 175, 254, None]


def test_a_table_that_names_no_device_serves_all() -> None:
    assert published_table("quad-table-3").figure("lora_rom_mb", task="sketch-to-image", device="s25") == 77


def test_a_line_of_a_sweep_is_found_by_its_value() -> None:
    table = published_table("quad-table-4")
    task = "prompt-guided-image-transformation"
    assert table.at(90).figure("psnr", task=task) == 28.8822
    assert table.at(50).figure("psnr", task=task) is None


def test_an_unknown_table_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="quad-table-1"):
        published_table("quad-table-6")


@pytest.mark.parametrize("name", PAPER)
def test_every_recipe_of_a_table_has_its_tasks_in_it(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.published is not None
    rows = published_table(recipe.published).rows
    assert {row.task for row in rows} == {task.name for task in recipe.tasks}


def test_every_row_and_column_stands_beside_ours_or_the_reason_why_not(tmp_path: Path) -> None:
    result = _with_tasks(make_run(tmp_path), "quad-table-2", restyle="object-removal")
    figures, table = beside("quad-table-2", result), published_table("quad-table-2")
    assert len(figures) == sum(len(row.figures) for row in table.rows)
    by_row = {(figure.row, figure.title): figure for figure in figures}
    ours = by_row["object-removal on s25 by lcm, 4 steps", "U-Net, one step, ms"]
    assert (ours.printed, ours.here, ours.address) == (249, pytest.approx(26, rel=0.05), S25.address)
    assert ours.span is not None
    assert ours.span[0] < ours.here < ours.span[1]
    assert by_row["object-removal on s25 by lcm, 4 steps", "Foundation ROM, MB"].span is None
    assert ours.other_sampler == "olss, 8 steps"
    reads(by_row["object-removal on tabs11 by ed, 4 steps", "U-Net, one step, ms"].here, "tabs11")
    reads(by_row["prompt-guided-image-transformation on s25 by olss, 8 steps", "End to end, ms"].here)


def test_a_score_that_nobody_measured_says_how_to(tmp_path: Path) -> None:
    result = _with_tasks(make_run(tmp_path), "quad-table-1", restyle="prompt-guided-image-transformation", draw="object-removal")
    here = {f.title: f.here for f in beside("quad-table-1", result) if "object" not in f.row}
    reads(here["CLIP similarity"], "quadbench quality")
    reads(here["Custom CLIP score"])


def test_a_run_has_the_rows_of_its_own_share_of_8_bits(tmp_path: Path) -> None:
    result = _with_tasks(make_run(tmp_path), "quad-table-5", restyle="object-removal")
    for precision, load_ms in (("w8a16", 1156), ("mixed-20", 1101), ("mixed-50", None)):
        stored = replace(result.stored, artifact=replace(result.bundle, precision=precision))
        rows = kpi_rows(replace(result, stored=stored))
        assert next(row.published for row in rows if row.key == "session_load") == load_ms


def test_rows_of_other_shares_of_8_bits_say_that_they_were_not_measured_and_a_sweep_has_them(tmp_path: Path) -> None:
    task, table = "object-removal", published_table("quad-table-5")
    whole = _with_tasks(make_run(tmp_path), "quad-table-5", restyle=task)
    part = replace(whole, run_id="of-20", stored=replace(whole.stored, artifact=replace(whole.bundle, precision="mixed-20")))
    alone = {f.row: f.here for f in beside("quad-table-5", part) if f.title == "Session load, ms"}
    assert list(alone) == [f"{task} with {share} % of 8 bits" for share in (0, 10, 20, 30)]
    assert [isinstance(here, float) for here in alone.values()] == [False, False, True, False]
    reads(alone[f"{task} with 10 % of 8 bits"], 10, 8)
    figures = beside("quad-table-5", whole, part)
    assert len(figures) == sum(len(row.figures) for row in table.rows)
    loads = [(f.run_id, isinstance(f.here, float)) for f in figures if f.title == "Session load, ms"]
    assert loads == [(whole.run_id, True), (None, False), ("of-20", True), (None, False)]


@pytest.mark.parametrize("name", published_names())
def test_each_table_of_the_paper_is_one_object_for_people_and_programs(name: str, tmp_path: Path) -> None:
    rows = published_table(name).rows
    tasks = dict(zip(("restyle", "draw"), dict.fromkeys(str(row.task) for row in rows), strict=False))
    table = paper_table([_with_tasks(make_run(tmp_path), name, **tasks)], name)
    frame = to_frame([table])
    assert list(frame.columns[:8]) == ["table", "row", "column", "paper", "ours", "ours_low", "ours_high", "why_not"]
    assert len(frame) == len(table.text.rows) == sum(len(row.figures) for row in rows)
    assert sorted(frame.paper) == sorted(printed for row in rows for printed in row.figures.values())
    assert (frame.ours.isna() == frame.why_not.notna()).all()
    assert [row[3] == "–" for row in table.text.rows] == frame.ours.isna().tolist()
    assert frame.ours.notna().any()


def test_a_sweep_prints_a_table_of_the_paper_with_the_figures_of_its_runs(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = store_run(world)
    sweep = sweep_of(replace(point("int16", psnr=(40.0,), end_to_end=EVEN), run_id=RUN))
    path = layout.sweep(sweep.sweep_id) / "sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text(study_json(sweep))
    words = ["report", sweep.sweep_id, "--results", str(layout.root), "--table"]
    assert main([*words, "quad-table-3", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("table,row,column,paper,ours,ours_low,ours_high,why_not,run_id,")
    assert len(quadbench.figures(sweep.sweep_id, table="quad-table-3", results=layout.root)) == 24
    assert main([*words, "kpi"]) == 2
    says(capsys.readouterr().err, "quad-table-1")


def beside(name: str, *results: RunResult) -> tuple[PublishedFigure, ...]:
    """The figures of a table of the paper beside those of runs."""
    runs = [MeasuredRun(result=result, kpis=kpi_rows(result), quality=quality_rows(result)) for result in results]
    return published_figures(runs, published_table(name))


def _with_tasks(result: RunResult, published: str, **names: str) -> RunResult:
    """Return the run with other names for its tasks."""
    tasks = tuple(replace(task, name=names.get(task.name, task.name)) for task in result.bundle.tasks)
    records = tuple(
        replace(record, samples=tuple(replace(s, task=names.get(s.task or "", s.task)) for s in record.samples))
        for record in result.records
    )
    return replace(
        result, stored=replace(result.stored, artifact=replace(result.bundle, tasks=tasks)), records=records, published=published
    )
