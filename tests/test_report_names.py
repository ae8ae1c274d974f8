"""Names in charts, however long or wide, are seen whole in every window, or with their middle left out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import NARROW, opened, width_faults
from support.hand_made import EVEN, point, sweep_of
from support.synthetic_run import ABBA, S25, make_run

from quadbench.artifacts import Variant
from quadbench.report.chart import label_width, short
from quadbench.report.html import render_html, render_study
from quadbench.results.layout import Layout

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDE = "W" * 60
_CLIPPED = """() => [...document.querySelectorAll("svg[role=img] text")].filter((text) => {
  const box = text.getBoundingClientRect(), chart = text.closest("svg").getBoundingClientRect();
  return box.width && (box.left < chart.left - 1 || box.right > chart.right + 1);
}).map((text) => text.outerHTML)"""


def run(folder: Path) -> str:
    device = replace(S25, address=f"virtual:s25?{WIDE}")
    variants = (*ABBA * 2, Variant.RESIDENT, Variant.MERGED_AT_LOAD)
    return render_html(make_run(folder, devices=(device,), variants=variants, iterations=3), Layout(folder))


def sweep(_: Path) -> str:
    task = f"restyle-{WIDE}"
    first = point(f"int16-{WIDE}", task=task, psnr=(40.0, 42.0), end_to_end=EVEN, bytes=(10.0,))
    second = point("漢字" * 8, task=task, psnr=(39.0, 41.1), end_to_end=EVEN, bytes=(8.8,))
    both = (first, second, replace(first, device=f"tabs11-{WIDE}"), replace(second, device=f"tabs11-{WIDE}"))
    return render_study(sweep_of(*both, touched=(task,)))


@pytest.mark.parametrize("report", [run, sweep])
def test_no_name_in_a_chart_is_clipped(browser: "Browser", report: Callable[[Path], str], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(tmp_path))
    with opened(browser) as (page, _):
        page.goto(path.as_uri())
        page.evaluate("for (const one of document.querySelectorAll('details:not(.raw)')) one.open = true")
        assert page.locator("svg[role=img] text").count() > 20
        for width in (1100, NARROW):
            assert width_faults(page, width) == []
            assert page.evaluate(_CLIPPED) == [], width


def test_of_a_long_name_the_middle_is_left_out() -> None:
    assert short("virtual:s25") == "virtual:s25"
    assert short("virtual:s25?target=qnn&data_mb=4096") == "virtual:s25?target=qn…ta_mb=4096"
    assert len(short("x" * 10_000)) == 32
    assert label_width("x" * 10_000) < 32 * 15
    assert "\x1b" not in short("\x1b[31mred")
