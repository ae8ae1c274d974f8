"""Browser: Debian's chromium for tests -> pages in it, with every address that they ask for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
NARROW = 400  # pixels, as a phone has them


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Start a browser; skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: "Browser", **settings: Any) -> Iterator[tuple["Page", list[str]]]:
    """Open a page in a window of its own; the list has every address that was asked for, and what went wrong in scripts."""
    context = browser.new_context(**settings)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: asked.append(f"error: {error}"))
    page.on("console", lambda message: asked.append(f"error: {message.text}") if message.type == "error" else None)
    try:
        yield page, asked
    finally:
        context.close()


def width_faults(page: "Page", width: int) -> list[str]:
    """Put a page into a window of so many pixels, and return that it is wider."""
    page.set_viewport_size({"width": width, "height": 900})
    wide = page.evaluate("document.documentElement.scrollWidth")
    return [f"{wide} pixels wide, in a window of {width}"] if wide > width else []


def cut(page: "Page") -> list[str]:
    """Return the elements of a page that are not seen whole: outside the window, or larger than the box that shows them."""
    return page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((element) => {
          const box = element.getBoundingClientRect(), shown = getComputedStyle(element);
          if (!box.width || shown.clipPath !== "none" || element.closest("svg")) return false;
          const isOutside = box.left < -1 || box.right > document.documentElement.clientWidth + 1;
          const isBox = shown.display !== "inline";
          const isWider = shown.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1;
          const isHigher = shown.overflowY !== "visible" && element.scrollHeight > element.clientHeight + 1;
          return isOutside || (isBox && (isWider || isHigher));
        }).map((element) => element.outerHTML.slice(0, 80))"""
    )


def serious(page: "Page") -> list[str]:
    """Return what axe has against a page that keeps somebody from reading it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    if not page.evaluate("'axe' in window"):
        page.evaluate(f"{axe.axe_script}; null")
    violations = page.evaluate("axe.run({resultTypes: ['violations']}).then((results) => results.violations)")
    return [
        f"{one['id']}: {node['html']}" for one in violations if one["impact"] in ("serious", "critical") for node in one["nodes"]
    ]


def in_schemes(test: Callable[..., None]) -> Callable[..., None]:
    """Try a test's `scheme` in light and, behind `slow`, in dark."""
    return pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])(test)


_A4 = 700  # pixels between the margins of a page
_PRINT_FAULTS = """
width => {
  const style = element => getComputedStyle(element);
  const all = selector => [...document.querySelectorAll(selector)];
  const outline = element => element.outerHTML.slice(0, 120);
  const shown = all('body *').filter(one => one.checkVisibility() && !one.closest('svg'));
  const light = colour => colour === 'rgba(0, 0, 0, 0)' || colour.match(/[0-9.]+/g).slice(0, 3).every(part => part > 200);
  const rows = all('tbody').flatMap(one => one.rows.length > 1 ? [[one.rows[0], one.rows[one.rows.length - 1]]] : []);
  return [
    ...shown.filter(one => one.getBoundingClientRect().right > width + 1).map(one => `wider than paper: ${outline(one)}`),
    ...[document.body, ...shown].filter(one => !light(style(one).backgroundColor)).map(one => `dark: ${outline(one)}`),
    ...all('details:not(.raw) > :not(summary)').filter(one => !one.checkVisibility()).map(one => `folded: ${outline(one)}`),
    ...all('nav').filter(one => one.checkVisibility()).map(one => `of no use on paper: ${outline(one)}`),
    ...all('p, tr, figure, .item, caption').filter(one => style(one).breakInside !== 'avoid').map(one => `torn: ${outline(one)}`),
    ...all('h2, h3, caption, thead').filter(one => style(one).breakAfter !== 'avoid').map(one => `alone: ${outline(one)}`),
    ...rows.filter(([first, last]) => style(first).breakAfter !== 'avoid' || style(last).breakBefore !== 'avoid')
      .map(([first]) => `a row alone: ${outline(first)}`),
    ...all('.strip').filter(one => new Set([...one.children].map(each => each.offsetTop)).size > 1)
      .map(one => `pictures in two rows: ${outline(one)}`),
    ...all('.chart > svg').filter(one => one.getBoundingClientRect().width > 0.75 * width).map(one => `huge: ${outline(one)}`),
  ];
}
"""


def print_faults(page: "Page") -> list[str]:
    """Return what is wrong with a page on A4: what is cut, dark, folded away, torn apart or alone at the end of a page."""
    page.set_viewport_size({"width": _A4, "height": 1000})
    page.emulate_media(media="print")
    return page.evaluate(_PRINT_FAULTS, _A4)
