"""Every report in a browser: readable in light, dark, narrow and print, by everybody, and nothing is asked of any network."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import NARROW, in_schemes, opened, print_faults, serious, width_faults
from support.reports import REPORTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE = 1100
Opened = tuple["Page", list[str]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A report of every kind, by its name."""
    files = {name: tmp_path_factory.mktemp(name) / f"{name}.html" for name in REPORTS}
    for name, path in files.items():
        path.write_text(REPORTS[name](path.parent))
    return files


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest, written: Mapping[str, Path]) -> str:
    return written[request.param].as_uri()


@pytest.fixture(scope="module")
def shared_page(browser: "Browser") -> Iterator[Opened]:
    """A page in which one report after the other is opened, with what that asks for."""
    with opened(browser) as both:
        yield both


@pytest.fixture(scope="module")
def dark_page(browser: "Browser") -> Iterator[Opened]:
    """A page of a dark screen and without script."""
    with opened(browser, color_scheme="dark", java_script_enabled=False) as both:
        yield both


@in_schemes
def test_a_report_fits_a_wide_and_a_narrow_window_and_axe_has_nothing_serious_against_it(
    shared_page: Opened, report: str, scheme: str
) -> None:
    page, asked = shared_page
    page.emulate_media(color_scheme=scheme)
    asked.clear()
    page.goto(report)
    for width in (WIDE, NARROW):
        if pictures := page.locator(".item img").all():
            pictures[0].click()  # large or small, axe shall have nothing against it
        assert width_faults(page, width) == []
        assert serious(page) == []
    assert {address for address in asked if not address.startswith("data:")} == {report}


def test_a_report_prints_whole_and_on_white_from_a_dark_screen_without_script(dark_page: Opened, report: str) -> None:
    page, asked = dark_page
    page.goto(report)
    assert page.locator("svg[role=img]").count() > 1
    assert print_faults(page) == []
    assert not [address for address in asked if address.startswith("error")]


def test_a_click_or_a_key_shows_a_picture_large_and_small_again_without_script(
    browser: "Browser", written: Mapping[str, Path]
) -> None:
    with opened(browser, java_script_enabled=False) as (page, _):
        page.goto(written["run"].as_uri())
        pictures = page.locator(".item img")
        assert pictures.count() == written["run"].read_text().count("data:image/png") > 20
        shared = page.get_by_alt_text("restyle, 000: Shared", exact=True)

        def shown_width() -> float:
            box = shared.bounding_box()
            assert box is not None
            return box["width"]

        for width in (WIDE, NARROW):
            assert width_faults(page, width) == []
            small = shown_width()
            for turn in (shared.click, lambda: page.keyboard.press("Enter"), lambda: page.keyboard.press("Space")):
                turn()
                assert 2 * small < shown_width() <= width
                assert width_faults(page, width) == []
                turn()
                assert shown_width() == small


def test_on_a_phone_no_figure_is_cut_and_a_table_that_goes_on_beside_its_box_shows_so(shared_page: Opened, report: str) -> None:
    page, _ = shared_page
    page.goto(report)
    assert width_faults(page, NARROW) == []
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
