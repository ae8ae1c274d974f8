"""Every report in a browser: readable in light, dark, narrow and print, by everybody, and nothing is asked of any network."""

from typing import TYPE_CHECKING

import pytest
from support.browser import faults_of, in_windows, opened, print_faults
from support.reports import REPORTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    path = folder / f"{request.param}.html"
    path.write_text(REPORTS[request.param](folder))
    return path.as_uri()


@in_windows(1100)
def test_a_report_fits_its_window_and_axe_has_nothing_serious_against_it(
    browser: "Browser", report: str, scheme: str, width: int
) -> None:
    with opened(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as (page, asked):
        page.goto(report)
        assert faults_of(page, width) == []
        assert {address for address in asked if not address.startswith("data:")} == {report}


def test_a_report_prints_whole_and_on_white_from_a_dark_screen_without_script(browser: "Browser", report: str) -> None:
    with opened(browser, color_scheme="dark", java_script_enabled=False) as (page, asked):
        page.goto(report)
        assert page.locator("svg[role=img]").count() > 1
        assert print_faults(page) == []
        assert not [address for address in asked if address.startswith("error")]
