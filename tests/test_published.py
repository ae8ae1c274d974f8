"""Published figures: the right row stands beside a measured one."""

import pytest

from quadbench.errors import UnknownNameError
from quadbench.recipe import RECIPES_FOLDER, load_recipe
from quadbench.recipe.published import published_table

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
    assert table.figure("psnr_db", task=task, where={"int8_percent": 90}) == 28.8822
    assert table.figure("psnr_db", task=task, where={"int8_percent": 50}) is None


def test_an_unknown_table_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="quad-table-1"):
        published_table("quad-table-6")


@pytest.mark.parametrize("name", PAPER)
def test_every_recipe_of_a_table_has_its_tasks_in_it(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.published is not None
    rows = published_table(recipe.published).rows
    assert {row.task for row in rows} == {task.name for task in recipe.tasks}
