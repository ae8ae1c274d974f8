"""The report of a run with very many launches stays short, counts all of them, and says what of them it leaves out."""

from dataclasses import replace
from datetime import timedelta

import pytest
from support.long_run import RUN, store_long_run
from support.report_page import Page
from support.sentences import says
from support.synthetic_run import failed

from quadbench.artifacts import RunResult, Variant
from quadbench.report import html
from quadbench.report.kpi import Figure
from quadbench.report.provenance import MAX_LISTED
from quadbench.report.run_charts import strips_of
from quadbench.report.view import MAX_NAMED, report_view
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run

LAUNCHES = 160  # of each of two variants


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("long"))
    assert store_long_run(layout, devices=1, tasks=2, launches=LAUNCHES) == RUN
    return layout


@pytest.fixture(scope="module")
def run(layout: Layout) -> RunResult:
    return load_run(layout, RUN)


@pytest.fixture(scope="module")
def page(run: RunResult, layout: Layout) -> str:
    return html.render_html(run, layout)


def test_all_launches_count_and_one_in_two_is_listed_which_the_report_says(run: RunResult, layout: Layout, page: str) -> None:
    text = Page(page).text
    says(text, 2 * LAUNCHES, 2, "quadbench show", RUN, "--json", "--results", layout.root)
    view = report_view(run, layout)
    assert [launch.position for launch in view.listed.launches] == list(range(1, 2 * LAUNCHES, 2))
    rows = [row for device in view.kpis for task in device.tasks for row in task.rows if row.key == "end_to_end"]
    assert [row.shared.launches for row in rows if isinstance(row.shared, Figure)] == [LAUNCHES, LAUNCHES]


def test_four_times_as_many_launches_make_a_report_little_longer(run: RunResult, layout: Layout, page: str) -> None:
    more = tuple(replace(one, record_id=f"{one.record_id}-{n}", samples=one.samples[:]) for n in range(4) for one in run.records)
    longer = html.render_html(replace(run, records=more), layout)
    assert len(longer) < 1.2 * len(page)


def test_of_very_many_launches_that_failed_the_first_are_named_and_listed(run: RunResult, layout: Layout) -> None:
    wrong = replace(run, records=tuple(failed(record, "the harness was killed") for record in run.records))
    text = Page(html.render_html(wrong, layout)).text
    says(text, 2 * LAUNCHES - MAX_NAMED, "quadbench show", RUN, "--json", "--results", layout.root, 2 * LAUNCHES, MAX_LISTED)


def test_samples_that_are_read_as_those_before_them_are_the_same(run: RunResult) -> None:
    first, second, *_ = run.records
    assert {type(sample.value) for sample in second.samples} == {float}
    shared = [record for record in run.records if record.variant is first.variant]
    told = [[replace(sample, value=0.0) for sample in record.samples] for record in shared]
    assert all(one == told[0] for one in told)


def test_launches_that_are_drawn_are_of_every_variant(run: RunResult) -> None:
    (device,) = run.devices
    later = [replace(record, started_at=record.started_at + timedelta(days=n)) for n in (1, 2) for record in run.records]
    records = (*run.records, *later)[: 4 * MAX_LISTED]  # of which every fourth, of A B B A, is of one variant
    strips, *_ = strips_of(replace(run, records=records), device)
    assert {strip.variant for strip in strips.strips} == {Variant.SHARED, Variant.PER_GRAPH}


def test_a_report_of_many_devices_draws_fewer_launches_of_each(run: RunResult) -> None:
    addresses = [f"virtual:s25-{n}" for n in range(40)]
    few = [record for record in run.records if record.launch < LAUNCHES // 2]
    records = tuple(replace(one, device=replace(one.device, address=address)) for address in addresses for one in few)
    many = replace(run, records=records, deployments=())
    strips, *_ = strips_of(many, many.devices[0])
    assert len(strips.strips) <= 3000 / (40 * 2)
