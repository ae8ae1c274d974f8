"""The report of a history in a browser: read without script, light or dark, on a narrow screen, asking for nothing."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from support.browser import faults_of, in_windows, opened
from support.night_series import around
from test_history import REGRESSION, SLOWER
from test_history_report import NOW, WORD, on, told

from quadbench.artifacts import Caveat
from quadbench.nightly.history_html import HistoryPage, render_history

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NIGHTS = [around(one, Android="17") if n >= 10 else replace(one, caveats=(Caveat.THROTTLED,)) for n, one in enumerate(SLOWER)]


@in_windows(1100)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    tmp_path: Path, scheme: str, width: int, browser: "Browser"
) -> None:
    devices = [told(on(name, NIGHTS), [REGRESSION], [WORD]) for name in ("s25", "tabs11")]
    step = {"If this is intended": f"quadbench history restyle-s25 --acknowledge {'because ' * 40}"}
    html = render_history(HistoryPage(title="restyle-s25", told=devices, commands=step, next_step=step, made_at=NOW))
    (tmp_path / "history.html").write_text(html)
    with opened(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as (page, asked):
        page.goto((tmp_path / "history.html").as_uri())
        assert faults_of(page, width) == []
    assert [address for address in asked if not address.startswith("file:")] == []
