"""The live page in a browser: it follows a run from start to end, without script it is read all the same, and axe has nothing."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import NARROW, cut, in_schemes, opened, serious, width_faults
from support.live_lab import AT_WORK, NIGHT, OF_FARM, RUN, fill, pool_of_lab
from support.live_site import Site, served, serving
from support.stored_records import query
from support.watcher import Silent

pytest.importorskip("starlette")

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, Router

from quadbench import pipeline
from quadbench.artifacts import LaunchPlan, StoredBundle
from quadbench.devices.addresses import parse_addresses
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.serve.auth import AccessRules, AuthMiddleware
from quadbench.serve.pages import packaged_file

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATIENCE_S = 300
DEVICES = ("virtual:s25", "virtual:tabs11")
PAGES = (
    "/",
    "/farm",
    "/runs",
    f"/runs/{RUN}",
    f"/runs/{AT_WORK}",
    f"/runs/{OF_FARM}",
    f"/runs/{RUN}/pictures",
    "/nights",
    f"/nights/{NIGHT}",
)
ALL_PAGES = (*PAGES, "/history", "/history/restyle", "/nothing", "/sign-in")


class Held(Silent):
    """Holds each device's first launch until whoever looks has seen it."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def launch_started(self, _device: str, _launch: LaunchPlan, _number: int, _total: int) -> None:
        self.seen.wait(PATIENCE_S)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("devices", [DEVICES[:1], pytest.param(DEVICES, marks=pytest.mark.slow)], ids=["one", "two"])
def test_the_page_follows_a_run_on_its_devices_from_start_to_end(
    devices: tuple[str, ...], tiny_recipe: Path, tiny_bundle: StoredBundle, harness: Path, tmp_path: Path, browser: "Browser"
) -> None:
    layout, observer = Layout(tmp_path), Held()
    shutil.copytree(tiny_bundle.folder.parent, layout.bundles)
    shutil.copytree(harness.parent, layout.programs / harness.parent.name)
    outcomes: list[pipeline.RunOutcome] = []

    def run() -> None:
        outcomes.append(pipeline.run(load_recipe(tiny_recipe), parse_addresses(devices), layout=layout, observer=observer))

    thread = threading.Thread(target=run)
    with served(layout) as site, opened(browser) as (page, asked):
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(site.url)
        page.get_by_text("Nothing is running.").wait_for()
        thread.start()
        try:
            for device in devices:
                page.get_by_role("progressbar", name=device).wait_for()
            page.locator("#work").get_by_role("link").click()
            page.get_by_text("launch 1 of").first.wait_for()
        finally:
            observer.seen.set()
        page.get_by_role("link", name="Full report").wait_for()
        thread.join(PATIENCE_S)
        assert outcomes
        assert outcomes[0].is_ok
        assert outcomes[0].result.run_id in page.url
        page.goto(site.url)
        row = page.get_by_role("row").filter(has_text=outcomes[0].result.run_id)
        assert "ok" in row.inner_text()
    assert [address for address in asked if not address.startswith(f"{site.url}/")] == []


class Part:
    """A part of a page that changes, and how often it was asked for."""

    def __init__(self) -> None:
        self.html = "<button>in</button>"
        self.asked = 0

    def answer(self, _: Request) -> Response:
        self.asked += 1
        return HTMLResponse(self.html)


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def live(part: Part) -> Iterator[Site]:
    """A page with a part that changes, a button inside and one outside."""
    html = "<!doctype html><p class=fresh>read</p><div data-live=/live/x></div><button>out</button><script src=/live.js></script>"
    routes = [
        Route("/", lambda _: HTMLResponse(html)),
        Route("/live.js", lambda _: Response(packaged_file("live.js"), media_type="text/javascript")),
        Route("/live/x", part.answer),
    ]
    with serving(AuthMiddleware(Router(routes), AccessRules())) as site:
        yield site


def test_what_comes_while_the_focus_is_inside_is_shown_after_it(part: Part, live: Site, browser: "Browser") -> None:
    with opened(browser) as (page, _), opened(browser) as (beside, _):
        for one in (page, beside):
            one.goto(live.url)
            one.get_by_text("in", exact=True).wait_for()
        assert page.locator(".fresh").inner_text() == "live"
        page.get_by_text("in", exact=True).focus()
        part.html = "new"
        beside.get_by_text("new").wait_for()
        page.wait_for_timeout(3000)
        assert page.locator("[data-live]").inner_text() == "in"
        page.get_by_text("out").focus()
        page.get_by_text("new").wait_for()


def test_a_hidden_page_asks_for_nothing_until_it_is_seen_again(part: Part, live: Site, browser: "Browser") -> None:
    is_hidden = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    with opened(browser) as (page, _):
        page.goto(live.url)
        page.get_by_text("in", exact=True).wait_for()
        page.evaluate(is_hidden % "true")
        asked = part.asked
        part.html = "new"
        page.wait_for_timeout(5000)
        assert part.asked <= asked + 1
        page.evaluate(f"{is_hidden % 'false'}; document.dispatchEvent(new Event('visibilitychange'))")
        page.get_by_text("new").wait_for()


def test_every_page_is_read_without_script(site: Site, browser: "Browser") -> None:
    with opened(browser, java_script_enabled=False) as (page, asked):
        for path in PAGES:
            page.goto(site.url + path)
            assert page.locator("h1").count() == 1, path
            is_live = page.locator("[data-live]").count() == 1
            assert page.locator("meta[http-equiv=refresh]").count() == is_live, path
    assert [address for address in asked if not address.startswith(f"{site.url}/")] == []


def test_axe_sees_a_fault(browser: "Browser") -> None:
    with opened(browser) as (page, _):
        page.set_content("<p style='color: #eee; background: white'>can hardly be read</p>")
        assert {fault.partition(":")[0] for fault in serious(page)} >= {"html-has-lang", "color-contrast"}


def test_what_is_cut_is_seen(browser: "Browser") -> None:
    words = "<b style='white-space: nowrap'>many words behind each other</b>"
    with opened(browser) as (page, _):
        for style in (
            "overflow: hidden; width: 5em",
            "overflow: auto; width: 5em",
            "overflow: hidden; height: 5px",
            "width: 5000px",
        ):
            page.set_content(f"<div style='{style}'>{words}</div>")
            assert cut(page), style
            page.set_content(f"<div>{words}</div>")
            assert cut(page) == []


@in_schemes
def test_axe_finds_nothing_serious_and_nothing_is_cut_or_wider_than_a_wide_and_a_narrow_window(
    site: Site, scheme: str, browser: "Browser"
) -> None:
    faults = {}
    with opened(browser, color_scheme=scheme) as (page, asked):
        for path in ALL_PAGES:
            page.goto(site.url + path)
            faults[path] = [
                fault for width in (1400, NARROW) for fault in (*width_faults(page, width), *cut(page), *serious(page))
            ]
    assert {path: fault for path, fault in faults.items() if fault} == {}
    assert [address for address in asked if not address.startswith(f"{site.url}/") and "404" not in address] == []


def test_long_names_are_broken_where_the_window_is_narrow(tmp_path: Path, browser: "Browser") -> None:
    layout, faults = Layout(tmp_path), {}

    def lengthen(text: str) -> str:
        return f"{text}-{'x' * 60}"

    fill(layout, lengthen)
    with (
        served(layout, pool=lambda: pool_of_lab(lengthen)) as site,
        opened(browser, viewport={"width": NARROW, "height": 900}) as (page, _),
    ):
        for path in ALL_PAGES:
            page.goto(site.url + path)
            faults[path] = width_faults(page, NARROW) + cut(page)
    assert {path: fault for path, fault in faults.items() if fault} == {}


def test_a_long_reason_leaves_the_short_words_of_a_job_on_one_line(own_lab: Layout, browser: "Browser") -> None:
    query(own_lab.database, f"UPDATE jobs SET reason = '{'the phone was lost during a launch; ' * 5}'")
    lines = """() => ["Kind", "Owner", "Attempt"].flatMap((label) =>
      [...document.querySelectorAll(`.jobs td[data-label=${label}]`)].map((cell) => {
        const words = document.createRange();
        words.selectNodeContents(cell);
        return words.getClientRects().length;
      }))"""
    with served(own_lab, pool=pool_of_lab) as site, opened(browser) as (page, _):
        page.goto(f"{site.url}/farm")
        for width in (1000, 1400):
            assert width_faults(page, width) + cut(page) == []
            assert page.evaluate(lines) == [1] * 9
