"""Sides that met different conditions: the files that both variants run tell, and times are not compared."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.sentences import says
from support.synthetic_run import ABBA, make_run

from quadbench.artifacts import RunRecord, RunResult, Variant
from quadbench.report.headline import headline, missing_figures, plain_text
from quadbench.report.html import render_html
from quadbench.report.kpi import kpi_rows, unequal_rows
from quadbench.results.layout import Layout


def slowed(folder: Path, factor: float, variants: tuple[Variant, ...] = ABBA) -> RunResult:
    """A run whose shared launches met a machine that was slower in everything."""

    def slow(record: RunRecord) -> RunRecord:
        if record.variant is not Variant.SHARED:
            return record
        samples = [replace(s, value=s.value * factor) if s.metric.endswith("_ns") else s for s in record.samples]
        return replace(record, samples=tuple(samples))

    return make_run(folder, variants=variants, change=slow)


def sentence_of(result: RunResult) -> str:
    return plain_text(headline((), kpi_rows(result), ()))


def test_a_slower_machine_on_one_side_is_told_by_the_file_that_both_run(tmp_path: Path) -> None:
    result = slowed(tmp_path, 1.5)
    rows = unequal_rows(kpi_rows(result))
    assert {row.key for row in rows} == {"vae_decoder"}
    assert [row.task for row in rows] == [task.name for task in result.bundle.tasks]
    told = [gap for gap in missing_figures(result, kpi_rows(result)) if "ran under different conditions" in gap]
    assert len(told) == 1
    for gap in told:
        says(gap, " and ".join(row.task for row in rows))
    for gap in told:
        says(gap)


def test_times_that_do_not_compare_stand_in_no_colour(tmp_path: Path) -> None:
    coloured = re.compile(r'class="num ratio (?:better|worse)"')
    factors = {"equal": 1.0, "unequal": 1.5}
    equal, unequal = (render_html(slowed(tmp_path / of, factor), Layout(tmp_path / of)) for of, factor in factors.items())
    row = re.compile(r'<tr class="row-(?:end_to_end|switch|unet_step)">.*?</tr>', re.DOTALL)
    assert any(coloured.search(text) for text in row.findall(equal))
    assert not any(coloured.search(text) for text in row.findall(unequal))


def test_the_headline_leaves_such_times_out_and_keeps_memory(tmp_path: Path) -> None:
    assert "time" in sentence_of(slowed(tmp_path / "equal", 1.0)).partition("n image takes")[2]
    unequal = sentence_of(slowed(tmp_path / "unequal", 1.5)).lower()
    assert "time" not in unequal.partition("an image takes")[2]
    assert "memory" in unequal.partition("an image takes")[2]


def test_noise_of_two_launches_is_no_difference_of_conditions_and_twelve_see_one_in_spite_of_it(tmp_path: Path) -> None:
    def noisy(folder: Path, factor: float, blocks: int) -> RunResult:
        def change(record: RunRecord) -> RunRecord:
            speed = (1.0, 1.12, 1.16, 1.03)[record.launch % 4] * (factor if record.variant is Variant.SHARED else 1.0)
            samples = [replace(s, value=s.value * speed) if s.metric.endswith("_ns") else s for s in record.samples]
            return replace(record, samples=tuple(samples))

        return make_run(folder, variants=ABBA[1:] * blocks, items=1, iterations=2, change=change)

    apart = noisy(tmp_path / "few", 1.0, 1)  # both shared launches were faster than both others
    assert unequal_rows(kpi_rows(apart)) == ()
    assert len(unequal_rows(kpi_rows(noisy(tmp_path / "many", 1.4, 6)))) == 3


@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_small_differences_are_the_noise_of_any_run(tmp_path: Path, factor: float) -> None:
    assert unequal_rows(kpi_rows(slowed(tmp_path, factor))) == ()
