"""The live page tells what is in the results folder and its database, reads only, and no text on it is markup or a path."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.hand_made import comparison_of
from support.live_lab import AT_WORK, NIGHT, OF_FARM, RUN, fill, pool_of_lab, work
from support.live_site import Site, served
from support.postgresql_server import PostgresqlServer
from support.report_page import Page
from support.sentences import says
from support.stored_records import query, record

pytest.importorskip("starlette")

from quadbench.nightly.night_report import NightResult
from quadbench.report.run_line import write_comparison
from quadbench.results.engine import DATABASE_VARIABLE, database_of
from quadbench.results.layout import Layout
from quadbench.results.nights import NightStore
from quadbench.results.progress import save_progress
from quadbench.results.records import open_records
from quadbench.serve.queries import ResultsQueries

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><a href=javascript:alert(3)>{{ 7*7 }}\x1b[31m../../etc/passwd"
PAGES = (
    "/",
    "/farm",
    "/runs",
    f"/runs/{RUN}",
    f"/runs/{RUN}/pictures",
    f"/runs/{AT_WORK}",
    f"/runs/{OF_FARM}",
    "/nights",
    f"/nights/{NIGHT}",
    "/history",
    "/history/restyle",
)
REPORTS = (f"/runs/{RUN}/report", f"/nights/{NIGHT}/report")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A lab in which every text that comes from outside attacks who looks at it."""
    layout = Layout(tmp_path_factory.mktemp("attacked"))

    def attack(text: str) -> str:
        return f"{text}{ATTACK}"

    fill(layout, attack)
    with served(layout, pool=lambda: pool_of_lab(attack)) as site:
        yield site


@pytest.mark.parametrize("path", [*PAGES, *REPORTS])
def test_a_page_is_whole_and_says_how_it_may_be_used(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status == 200
    assert Page(answer.text).wrong == []
    assert "cannot be read" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "") if path in REPORTS else "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


@pytest.mark.parametrize("path", [*PAGES, *REPORTS])
def test_no_text_from_outside_is_markup(attacked: Site, path: str) -> None:
    answer = attacked.ask(path)
    page = Page(answer.text)
    assert answer.status == 200
    assert page.wrong == []
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or (name == "style" and path in PAGES)], tag
        assert tag not in ("script", "iframe") or attributes == {"src": "/live.js", "defer": None}
        assert not re.match(r"\s*(javascript|data:text)", attributes.get("href") or "")
        source = attributes.get("src") or "/"
        assert source.startswith(("/", "data:image/png;base64,"))
        assert not source.startswith("//")
    assert "\x1b" not in answer.text


@pytest.mark.parametrize("path", ["/live/now", "/live/farm", f"/live/runs/{AT_WORK}"])
def test_no_text_from_outside_is_markup_where_a_page_is_live(attacked: Site, path: str) -> None:
    page = Page(attacked.ask(path).text)
    assert page.wrong == []
    assert not {"script", "img", "iframe"} & {tag for tag, _ in page.elements}


def test_the_first_page_says_what_runs_what_is_broken_and_what_came_out_last_night(site: Site) -> None:
    text = Page(site.ask("/").text).text
    says(text, 2, 1, 3, 4, "restyle")
    assert OF_FARM in text
    assert RUN in text


def test_the_farm_says_who_has_what_and_what_waits(site: Site) -> None:
    text = Page(site.ask("/farm").text).text
    says(text, 4, 1, 2)
    assert "ana@lab: profiling" in text
    says(text, "ben@lab", "quickstart", "lab-1", "0.1.0")


def test_a_run_says_its_result_its_doubts_and_what_failed_of_it(site: Site) -> None:
    text = Page(site.ask(f"/runs/{RUN}").text).text
    says(text, "virtual:s25", "virtual:tabs11")
    assert "precision.lora = int8" in text


def test_a_run_s_pictures_are_looked_up_by_number(site: Site) -> None:
    page = Page(site.ask(f"/runs/{RUN}/pictures").text)
    sources = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert sources
    picture = site.ask(str(sources[0]))
    assert picture.headers["content-type"] == "image/png"
    assert picture.body.startswith(b"\x89PNG")


def test_a_run_of_the_farm_shows_its_jobs_until_it_is_over(site: Site) -> None:
    text = Page(site.ask(f"/runs/{OF_FARM}").text).text
    says(text, 2, "ana@lab", 0, 3)


def test_a_comparison_is_listed_and_its_report_shown(own_lab: Layout) -> None:
    versus = comparison_of({"virtual:s25": 1.05, "virtual:tabs11": 9.0})
    write_comparison(versus, own_lab)
    with served(own_lab) as site:
        text, report = Page(site.ask("/runs").text).text, site.ask(f"/studies/{versus.comparison_id}")
        unknown = site.ask("/studies/..%2f"), site.ask("/studies/nothing")
    says(text, "quickstart")
    assert versus.comparison_id in text
    assert report.status == 200
    assert "sandbox" in report.headers["content-security-policy"]
    assert [answer.status for answer in unknown] == [404, 404]


def test_a_run_whose_files_lie_elsewhere_says_how_they_come_here(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with open_records(layout.database) as records:
        records.store(record())
    with served(layout) as site:
        answer = site.ask("/runs/run-a")
    assert answer.status == 200
    says(answer.text, "quadbench farm fetch", "--results", tmp_path.name)


def test_a_report_that_lies_there_is_shown_as_it_is_but_for_the_path_of_the_results_folder(
    own_lab: Layout, tmp_path: Path
) -> None:
    path = own_lab.report(RUN)
    with served(own_lab) as site:
        shown = [site.ask(page).text for page in (f"/runs/{RUN}", *REPORTS)]
        path.parent.mkdir()
        path.write_text(f"quadbench show --results {own_lab.root} {tmp_path}")
        written = site.ask(f"/runs/{RUN}/report").text
    assert all(str(tmp_path) not in text for text in shown)
    assert "--results lab" in "".join(shown)
    assert written == f"quadbench show --results lab {tmp_path}"


def test_a_report_or_picture_that_leads_elsewhere_or_is_too_large_is_not_shown(own_lab: Layout, tmp_path: Path) -> None:
    report, secret = own_lab.report(RUN), tmp_path / "secret"
    secret.write_text("secret words")
    report.parent.mkdir()
    report.symlink_to(secret)
    for number, picture in enumerate(sorted(own_lab.root.rglob("*.png"))):
        picture.rename(tmp_path / f"{number}.png")
        picture.symlink_to(tmp_path / f"{number}.png")
    with served(own_lab) as site:
        led, pictured = site.ask(f"/runs/{RUN}/report"), site.ask(f"/runs/{RUN}/pictures/0")
        report.unlink()
        with report.open("wb") as file:
            file.truncate(64 * 2**20 + 1)
        large = site.ask(f"/runs/{RUN}/report")
    assert (led.status, pictured.status, large.status) == (503, 503, 413)
    assert "secret words" not in led.text
    assert f"{RUN}" in large.text
    says(large.text, 64)
    assert str(tmp_path) not in led.text + large.text


def test_a_case_says_since_when_it_is_as_it_is(site: Site) -> None:
    text = Page(site.ask("/history/restyle").text).text
    assert "restyle on s25" in text
    says(text)


def test_a_case_has_charts_of_its_devices(site: Site) -> None:
    live = re.findall(r'<section id="(?:device-|reading).*?</section>', site.ask("/history/restyle").text, re.DOTALL)
    assert len(live) == 5
    assert "viewBox" in live[1]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/runs/nothing",
        "/runs/..",
        "/runs/..%2f..%2fetc%2fpasswd",
        "/runs/%2fetc%2fpasswd/report",
        "/runs/.%00/report",
        "/runs/%ff%fe",
        f"/runs/{RUN}/pictures/999",
        f"/runs/{RUN}/pictures/..",
        f"/runs/{RUN}/pictures/-1",
        f"/runs/{RUN}/pictures/{'9' * 5000}",
        "/nights/nothing",
        "/nights/..%2f..%2f/report",
        "/history/nothing",
        "/runs?page=0",
        "/runs?page=99999999999999999999",
        "/nights?page=%D9%A1",
        "/static/../live.js",
        "/live/nothing",
    ],
)
def test_what_is_not_there_is_not_found(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status == 404
    assert "content-security-policy" in answer.headers
    assert "Traceback" not in answer.text
    assert "known: none" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_everything_is_only_read(site: Site, method: str) -> None:
    assert site.ask("/runs", method).status == 405


def test_who_asks_for_the_head_gets_no_body(site: Site) -> None:
    answer = site.ask("/runs", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_a_folder_without_results_says_so_and_fills_as_work_begins(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with served(layout) as site:
        text = Page(site.ask("/").text).text
        says(text)
        assert "cannot be read" not in text
        says(text)
        assert [site.ask(f"/{name}").status for name in ("nights", "history")] == [200, 200]
        says(site.ask("/farm").text)
        says(site.ask("/runs").text)
        layout.at_work.mkdir()
        save_progress(layout, "work", work())
        time.sleep(1.1)  # until the live part's answer is asked anew
        assert "image 1 of 2" in site.ask("/live/now").text


def test_a_folder_without_results_says_how_the_first_one_comes(tmp_path: Path) -> None:
    paths = ("/nights/x", "/history/x", "/runs/x/report")
    with served(Layout(tmp_path)) as site:
        answers = {path: site.ask(path) for path in paths}
    for path, answer in answers.items():
        assert answer.status == 404, path
        says(answer.text.lower(), "quadbench run")


def test_who_looks_at_a_run_under_way_is_told_when_it_is_over(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.at_work.mkdir()
    save_progress(layout, "work", work())
    with served(layout) as site:
        assert "launch 3 of 4" in site.ask(f"/live/runs/{AT_WORK}").text
        layout.progress("work").unlink()
        time.sleep(2.2)  # until no answer of before is kept
        assert site.ask(f"/live/runs/{AT_WORK}").status == 204


def test_a_night_is_told_as_by_its_own_report(own_lab: Layout) -> None:
    with open_records(database_of(own_lab)) as records:
        nights = NightStore(records.engine)
        performed = NightResult.from_night(nights.night(NIGHT), nights)
    view, own = ResultsQueries(own_lab).night(NIGHT), performed.view(ResultsQueries(own_lab).layout.root_arguments)
    assert (view.sentence, view.doubt, view.findings, view.devices) == (own.sentence, own.doubt, own.findings, own.devices)
    assert [finding.next.command for finding in view.findings if "tabs11" in finding.next.command] == [
        f"quadbench doctor --device tabs11 --results {own_lab.root.name}"
    ]


def test_a_database_that_is_damaged_is_said_without_its_place_and_costs_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = Layout(tmp_path)
    layout.at_work.mkdir()
    save_progress(layout, "work", work())
    layout.database.write_text("no database " * 100)
    with served(layout) as site:
        first, runs = site.ask("/"), site.ask("/runs")
    assert first.status == 503
    says(first.text, 3, 4)
    text = Page(first.text).text
    assert text.index("The farm cannot be read") < text.index("under way") < text.index("unknown devices with problems")
    says(text)
    assert "sign good" not in first.text
    assert "no night" not in text.lower()
    assert runs.status == 503
    assert str(tmp_path) not in first.text + runs.text
    assert str(layout.database) in caplog.text


def test_records_in_postgresql_are_shown_without_a_password(
    postgresql: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "results")
    monkeypatch.setenv(DATABASE_VARIABLE, str(postgresql.new_database()).replace("quadbench@", "quadbench:s3cret@"))
    fill(layout)
    with served(layout) as site:
        answers = {path: site.ask(path) for path in ("/", "/farm", "/runs", "/nights", "/history", "/history/restyle")}
    assert RUN in answers["/runs"].text
    for path, answer in answers.items():
        assert answer.status == 200, path
        assert "s3cret" not in answer.text, path
        assert "postgresql" not in answer.text, path
        assert "cannot be read" not in answer.text, path


def test_a_stored_run_that_goes_on_here_or_on_the_farm_is_under_way(own_lab: Layout) -> None:
    save_progress(own_lab, "work", replace(work(), run_id=RUN, stage="compile"))
    with served(own_lab) as site:
        assert "under way" in Page(site.ask("/runs").text).text
    own_lab.progress("work").unlink()
    query(own_lab.database, f"UPDATE jobs SET run_id = '{RUN}'")
    with served(own_lab) as site:
        assert "under way" in Page(site.ask("/runs").text).text


def test_metrics_count_jobs_leases_and_phones(site: Site) -> None:
    families = {one.name: one for one in text_string_to_metric_families(site.ask("/metrics").text)}
    counts = {
        name: {tuple(one.labels.values()): one.value for one in family.samples if one.value} for name, family in families.items()
    }
    assert counts.pop("quadbench_leases") in ({("job",): 1, ("person",): 1}, {("person",): 1})  # that of the job expires
    assert counts == {
        "quadbench_database_up": {(): 1},
        "quadbench_jobs": {("waiting",): 3},
        "quadbench_phones": {("healthy", "device"): 1, ("quarantined", "device"): 1},
    }


def test_metrics_of_a_damaged_database_say_only_that_it_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = Layout(tmp_path)
    layout.database.write_text("no database " * 100)
    with served(layout) as site:
        answer = site.ask("/metrics")
    (only,) = text_string_to_metric_families(answer.text)
    assert (answer.status, [(one.name, one.value) for one in only.samples]) == (200, [("quadbench_database_up", 0)])
    assert str(layout.database) in caplog.text
