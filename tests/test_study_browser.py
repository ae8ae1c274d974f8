"""Reports of sweeps and comparisons in a browser: read without script, light or dark, on a narrow screen, asking for nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

from support.browser import faults_of, in_windows, opened
from support.hand_made import EVEN, comparison_of, point, sweep_of

from quadbench.report.study_html import render_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GOOD = (40.0, 42.0, 41.0, 43.0)
SWEEP = sweep_of(
    point("int16", psnr=GOOD, end_to_end=EVEN, bytes=(10.0,)), point("int8", psnr=GOOD, end_to_end=EVEN, bytes=(8.8,))
)
COMPARISON = comparison_of({"virtual:s25": 1.05, "virtual:tabs11": 9.0})


@in_windows(1100)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    tmp_path: Path, scheme: str, width: int, browser: "Browser"
) -> None:
    faults = {}
    with opened(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as (page, asked):
        for name, study in (("sweep", SWEEP), ("comparison", COMPARISON)):
            path = tmp_path / f"{name}.html"
            path.write_text(render_study(study))
            page.goto(path.as_uri())
            faults[name] = faults_of(page, width)
    assert faults == {"sweep": [], "comparison": []}
    assert [address for address in asked if not address.startswith("file:")] == []
