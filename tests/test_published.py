"""Published figures: the right row stands beside a measured one."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.synthetic_run import S25, make_run

from quadbench.artifacts import RunResult
from quadbench.errors import UnknownNameError
from quadbench.recipe import RECIPES_FOLDER, load_recipe
from quadbench.recipe.published import published_table
from quadbench.report.kpi import kpi_rows
from quadbench.report.pictures import quality_rows
from quadbench.report.published import published_figures

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
    figures = published_figures(result, kpi_rows(result), quality_rows(result))
    table = published_table("quad-table-2")
    assert len(figures) == sum(len(row.figures) for row in table.rows)
    by_row = {(figure.row, figure.title): figure for figure in figures}
    ours = by_row["object-removal on s25 by lcm, 4 steps", "U-Net, one step, ms"]
    assert (ours.printed, ours.here, ours.address) == (249, pytest.approx(26, rel=0.05), S25.address)
    assert ours.other_sampler == "olss, 8 steps"
    assert by_row["object-removal on tabs11 by ed, 4 steps", "U-Net, one step, ms"].here == "no tabs11 took part"
    assert (
        by_row["prompt-guided-image-transformation on s25 by olss, 8 steps", "End to end, ms"].here
        == "the recipe has no such task"
    )


def test_a_score_that_nobody_measured_says_how_to(tmp_path: Path) -> None:
    result = _with_tasks(make_run(tmp_path), "quad-table-1", restyle="prompt-guided-image-transformation", draw="object-removal")
    here = {f.title: f.here for f in published_figures(result, kpi_rows(result), quality_rows(result)) if "object" not in f.row}
    assert here["CLIP similarity"] == "not scored: see `quadbench quality`"
    assert here["Custom CLIP score"] == "the paper does not define it"


def test_a_run_has_the_rows_of_its_own_share_of_8_bits(tmp_path: Path) -> None:
    result = _with_tasks(make_run(tmp_path), "quad-table-5", restyle="object-removal")
    for precision, load_ms in (("w8a16", 1156), ("mixed-20", 1101), ("mixed-50", None)):
        stored = replace(result.stored, artifact=replace(result.bundle, precision=precision))
        rows = kpi_rows(replace(result, stored=stored))
        assert next(row.published for row in rows if row.key == "session_load") == load_ms


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
