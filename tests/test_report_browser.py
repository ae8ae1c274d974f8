"""A run's report in a browser: readable in light, dark, narrow and print, by everybody, and nothing is asked of any network."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import faults_of, in_windows, opened
from support.synthetic_run import ABBA, S25, TABS11, make_run

from quadbench.artifacts import Variant
from quadbench.report import write_report
from quadbench.results.layout import Layout

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    result = make_run(folder, devices=(S25, TABS11), variants=(*ABBA * 2, Variant.RESIDENT), iterations=3)
    return write_report(result, Layout(folder)).as_uri()


@in_windows(1100)
def test_a_report_fits_its_window_and_axe_has_nothing_serious_against_it(
    browser: "Browser", report: str, scheme: str, width: int
) -> None:
    with opened(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as (page, asked):
        page.goto(report)
        assert faults_of(page, width) == []
        assert {address for address in asked if not address.startswith("data:")} == {report}


def test_a_report_needs_no_script_and_prints(browser: "Browser", report: str, tmp_path: Path) -> None:
    with opened(browser, java_script_enabled=False) as (page, asked):
        page.goto(report)
        assert page.locator("svg[role=img]").count() > 10
        page.pdf(path=tmp_path / "report.pdf", format="A4")
        assert (tmp_path / "report.pdf").stat().st_size > 50_000
        assert not [address for address in asked if address.startswith("error")]
