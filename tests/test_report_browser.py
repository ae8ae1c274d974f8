"""Every report in a browser: readable in light, dark, narrow and print, by everybody, and nothing is asked of any network."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import NARROW, faults_of, in_windows, opened, print_faults
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
        if pictures := page.locator(".item img").all():
            pictures[0].click()  # large or small, axe shall have nothing against it
        assert faults_of(page, width) == []
        assert {address for address in asked if not address.startswith("data:")} == {report}


def test_a_report_prints_whole_and_on_white_from_a_dark_screen_without_script(browser: "Browser", report: str) -> None:
    with opened(browser, color_scheme="dark", java_script_enabled=False) as (page, asked):
        page.goto(report)
        assert page.locator("svg[role=img]").count() > 1
        assert print_faults(page) == []
        assert not [address for address in asked if address.startswith("error")]


@pytest.mark.parametrize("width", [1100, NARROW])
def test_a_click_or_a_key_shows_a_picture_large_and_small_again_without_script(
    browser: "Browser", tmp_path: Path, width: int
) -> None:
    (tmp_path / "run.html").write_text(html := REPORTS["run"](tmp_path))
    with opened(browser, java_script_enabled=False, viewport={"width": width, "height": 900}) as (page, _):
        page.goto((tmp_path / "run.html").as_uri())
        pictures = page.locator(".item img")
        assert pictures.count() == html.count("data:image/png") > 20
        shared = page.get_by_alt_text("restyle, 000: Shared", exact=True)

        def shown_width() -> float:
            box = shared.bounding_box()
            assert box is not None
            return box["width"]

        small = shown_width()
        for turn in (shared.click, lambda: page.keyboard.press("Enter"), lambda: page.keyboard.press("Space")):
            turn()
            assert 2 * small < shown_width() <= width
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            turn()
            assert shown_width() == small


def test_on_a_phone_no_figure_is_cut_and_a_table_that_goes_on_beside_its_box_shows_so(browser: "Browser", report: str) -> None:
    with opened(browser, viewport={"width": NARROW, "height": 900}) as (page, _):
        page.goto(report)
        page.evaluate("for (const one of document.querySelectorAll('details:not(.raw)')) one.open = true")
        assert page.evaluate(_TELLING_TABLES_CUT) == []
        assert page.evaluate(_BOXES_WITHOUT_A_HINT) == []


# The first table of a section says what is asked; it is read without a hand. What lies beyond a box is hinted at by a shadow that
# stays at the box's edge, below a cover that moves with the table.
_TELLING_TABLES_CUT = """() => [...document.querySelectorAll("#figures > table, #figures > .scroll > table, #findings > table")]
  .flatMap(table => [...table.querySelectorAll("td, th")])
  .filter(cell => cell.checkVisibility() && cell.getBoundingClientRect().right > innerWidth).map(cell => cell.outerHTML)"""
_BOXES_WITHOUT_A_HINT = """() => [...document.querySelectorAll("body *")].filter(box => {
  const style = getComputedStyle(box), layers = style.backgroundAttachment.split(", ");
  return box.matches(".scroll") && box.scrollWidth > box.clientWidth + 1
    && !(style.overflowX === "auto" && layers.includes("scroll") && layers.includes("local"));
}).map(box => box.outerHTML.slice(0, 80))"""
