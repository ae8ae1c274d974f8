"""The live page in a browser: it follows a run from start to end, without script it is read all the same, and axe has nothing."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import faults_of, in_windows, opened, serious
from support.live_lab import AT_WORK, NIGHT, OF_FARM, RUN, fill
from support.live_site import Site, served
from support.watcher import Silent

pytest.importorskip("fastapi")

from quadbench import pipeline, serve
from quadbench.artifacts import Bundle, LaunchPlan, Stored
from quadbench.recipe import load_recipe
from quadbench.results.layout import Layout

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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    layout = Layout(tmp_path_factory.mktemp("lab"))
    fill(layout)
    with served(layout) as site:
        yield site


class Held(Silent):
    """Holds each device's first launch until whoever looks has seen it."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def launch(self, _device: str, _launch: LaunchPlan, _number: int, _total: int) -> None:
        self.seen.wait(PATIENCE_S)


@pytest.mark.timeout(900)
def test_the_page_follows_a_run_on_two_devices_from_start_to_end(
    tiny_recipe: Path, tiny_bundle: Stored[Bundle], harness: Path, tmp_path: Path, browser: "Browser"
) -> None:
    layout, observer = Layout(tmp_path), Held()
    shutil.copytree(tiny_bundle.folder.parent, layout.bundles)
    shutil.copytree(harness.parent, layout.programs / harness.parent.name)
    outcomes: list[pipeline.Outcome] = []

    def run() -> None:
        outcomes.append(pipeline.run(load_recipe(tiny_recipe), DEVICES, layout=layout, observer=observer))

    thread = threading.Thread(target=run)
    with served(layout) as site, opened(browser) as (page, asked):
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(site.url)
        page.get_by_text("Nothing runs.").wait_for()
        thread.start()
        try:
            for device in DEVICES:
                page.get_by_role("progressbar", name=device).wait_for()
            page.locator("#work").get_by_role("link").click()
            page.get_by_text("launch 1 of").first.wait_for()
        finally:
            observer.seen.set()
        page.get_by_role("link", name="The whole report").wait_for()
        thread.join(PATIENCE_S)
        assert outcomes
        assert outcomes[0].is_ok
        assert outcomes[0].result.run_id in page.url
        page.goto(site.url)
        row = page.get_by_role("row").filter(has_text=outcomes[0].result.run_id)
        assert "ok" in row.inner_text()
    assert [address for address in asked if not address.startswith(f"{site.url}/")] == []


def test_what_comes_while_the_focus_is_inside_is_shown_after_it_and_a_hidden_page_holds_no_stream(browser: "Browser") -> None:
    script = (Path(serve.__file__).parent / "live.js").read_text()
    with opened(browser) as (page, _):
        page.set_content("<p class=fresh>read</p><div data-live=/x><button>in</button></div><button>out</button>")
        page.evaluate("window.EventSource = class { constructor() { window.last = this; } close() { this.isClosed = true; } }; 0")
        page.add_script_tag(content=script)
        page.get_by_text("in", exact=True).focus()
        page.evaluate("last.onopen(); last.onmessage({data: 'new'})")
        assert page.locator(".fresh").inner_text() == "live"
        assert page.locator("[data-live]").inner_text() == "in"
        page.get_by_text("out").focus()
        page.get_by_text("new").wait_for()
        hide = "Object.defineProperty(document, 'hidden', {value: true}); document.dispatchEvent(new Event('visibilitychange'))"
        assert page.evaluate(f"{hide}; last.isClosed")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_read_without_script(site: Site, path: str, browser: "Browser") -> None:
    with opened(browser, java_script_enabled=False) as (page, asked):
        page.goto(site.url + path)
        assert page.locator("h1").count() == 1
        is_live = page.locator("[data-live]").count() == 1
        assert page.locator("meta[http-equiv=refresh]").count() == is_live
    assert [address for address in asked if not address.startswith(f"{site.url}/")] == []


def test_axe_sees_a_fault(browser: "Browser") -> None:
    with opened(browser) as (page, _):
        page.set_content("<p style='color: #eee; background: white'>can hardly be read</p>")
        assert {fault.partition(":")[0] for fault in serious(page)} >= {"html-has-lang", "color-contrast"}


@in_windows(1400)
def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    site: Site, scheme: str, width: int, browser: "Browser"
) -> None:
    faults = {}
    with opened(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as (page, asked):
        for path in ALL_PAGES:
            page.goto(site.url + path)
            faults[path] = faults_of(page, width)
    assert {path: fault for path, fault in faults.items() if fault} == {}
    assert [address for address in asked if not address.startswith(f"{site.url}/") and "404" not in address] == []
