"""A run held against an earlier one: what got worse, how surely, what would settle it, and what cannot be a baseline."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.report_page import Page
from support.sentences import raising, reads, says
from support.stored_run import RUN, stored_below
from support.synthetic_run import ABBA, make_run

from quadbench.artifacts import RunRecord, RunResult, Variant
from quadbench.cli import main
from quadbench.cli import run as cli_run
from quadbench.cli.run_source import BundleSource
from quadbench.errors import UserError
from quadbench.pipeline import RunOutcome
from quadbench.recipe import RunSettings
from quadbench.report.baseline import Baseline, baseline_tables, compare_with, require_comparable
from quadbench.report.condition import met_places, read_condition
from quadbench.report.html import render_html
from quadbench.report.kpi import kpi_rows
from quadbench.report.scores import quality_rows
from quadbench.report.view import report_view
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, load_run, read_run_file, save_run
from quadbench.statistics import Verdict
from quadbench.statistics.launch_comparison import compare_unpaired

TASKS = ("restyle", "remove-object", "draw")
MORE = (*ABBA, Variant.SHARED, Variant.PER_GRAPH)


def scaled(metric: str, factor: float) -> Callable[[RunRecord], RunRecord]:
    """Change a metric of the shared graph alone."""

    def change(record: RunRecord) -> RunRecord:
        if record.variant is not Variant.SHARED:
            return record
        samples = (replace(s, value=s.value * factor) if s.metric == metric else s for s in record.samples)
        return replace(record, samples=tuple(samples))

    return change


def held(folder: Path, change: Callable[[RunRecord], RunRecord], variants: tuple[Variant, ...] = MORE) -> Baseline:
    before = make_run(folder / "before", variants=variants)
    now = replace(make_run(folder / "now", variants=variants, change=change), run_id="now")
    return compare_with(before, kpi_rows(before), now, kpi_rows(now))


def verdicts_of(baseline: Baseline, key: str, variant: Variant = Variant.SHARED) -> set[Verdict]:
    return {figure.verdict for figure in baseline.figures if (figure.key, figure.variant) == (key, variant)}


@pytest.mark.parametrize(("factor", "verdict"), [(1.5, Verdict.WORSE), (0.5, Verdict.BETTER), (1.0, Verdict.INCONCLUSIVE)])
def test_a_figure_that_changed_by_more_than_launches_differ_is_told(tmp_path: Path, factor: float, verdict: Verdict) -> None:
    baseline = held(tmp_path, scaled("end_to_end_ns", factor))
    assert verdicts_of(baseline, "end_to_end") <= {verdict, Verdict.SAME if factor == 1.0 else verdict}
    assert Verdict.WORSE not in verdicts_of(baseline, "end_to_end", Variant.PER_GRAPH)


def test_figures_of_one_launch_cannot_be_told_however_far_apart_and_bytes_can(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return scaled("rom_bytes", 1.001)(scaled("end_to_end_ns", 9.0)(record))

    baseline = held(tmp_path, change, (Variant.FLOAT, Variant.SHARED))
    assert verdicts_of(baseline, "end_to_end") == {Verdict.INCONCLUSIVE}
    assert verdicts_of(baseline, "foundation_rom") == {Verdict.WORSE}
    assert {figure.low for figure in baseline.figures} == {None}


def test_likeness_of_pictures_is_worse_where_it_falls(tmp_path: Path) -> None:
    baseline = held(tmp_path, scaled("psnr_db", 0.9))
    assert verdicts_of(baseline, "psnr") == {Verdict.WORSE}
    assert verdicts_of(baseline, "psnr", Variant.PER_GRAPH) == {Verdict.SAME}


def test_the_result_is_said_with_its_doubt_and_what_would_settle_it(tmp_path: Path) -> None:
    baseline = held(tmp_path, scaled("end_to_end_ns", 1.5))
    (sentence,) = baseline.sentences
    says(sentence, "virtual:s25", "20260102-030405-quickstart", "restyle", "1.500")
    says(baseline.doubt)
    assert baseline.settled_by == "quadbench compare 20260102-030405-quickstart now --devices virtual:s25"
    where = Layout(tmp_path / "now").root_arguments
    elsewhere = compare_with(make_run(tmp_path / "now"), (), make_run(tmp_path / "now"), (), where)
    assert elsewhere.settled_by.endswith(f" --devices virtual:s25 --results {tmp_path / 'now'}")
    short, full = (baseline_tables(baseline, is_full=is_full)[-1].rows for is_full in (False, True))
    assert 0 < len(short) < len(full)


def test_a_run_with_a_task_more_is_held_against_its_baseline_by_the_tasks_of_both(tmp_path: Path) -> None:
    now = replace(make_run(tmp_path / "now", variants=MORE), run_id="now")
    run = make_run(tmp_path / "before", variants=MORE)
    before = replace(run, stored=replace(run.stored, artifact=replace(run.bundle, tasks=run.bundle.tasks[:2])))
    baseline = compare_with(before, kpi_rows(before), now, kpi_rows(now))
    assert baseline.only_now == ("draw",)
    assert {figure.task for figure in baseline.figures} == set(TASKS[:2])
    _, others, unchanged, settled = baseline.sentences
    reads(others)
    says(unchanged, "restyle", "remove-object")
    assert baseline.settled_by in settled
    for text, count in (("shared.psnr_db.worse", 0), ("draw.shared.psnr_db.worse", 1), ("shared.psnr_db > 0", 3)):
        condition = read_condition(text, TASKS, has_baseline=True)
        assert len(met_places(condition, kpi_rows(now), quality_rows(now), baseline)) == count
    condition = read_condition("draw.baseline.shared.psnr_db > 0", TASKS, has_baseline=True)
    (skipped,) = met_places(condition, kpi_rows(now), quality_rows(now), baseline)
    assert now.devices[0].address not in skipped  # left out as new, not missed on a device
    changed = compare_with(before, kpi_rows(before), worse := _duller(now), kpi_rows(worse))
    assert not any("are unchanged" in sentence for sentence in changed.sentences)


def _duller(run: RunResult) -> RunResult:
    """Return a run whose pictures are worse."""
    return replace(run, records=tuple(map(scaled("psnr_db", 0.8), run.records)))


def test_what_else_differs_between_the_runs_is_named(tmp_path: Path) -> None:
    baseline = held(tmp_path, lambda record: replace(record, versions={"runtime": "2.0"}))
    assert baseline.differences["virtual:s25"]["runtime"] == ("1.27.0", "2.0")


def test_equal_launches_are_seldom_called_different() -> None:
    dice = np.random.default_rng(7)
    wrong = 0
    for _ in range(2000):
        a, b = np.exp(dice.normal(0, 0.05, (2, 2)))
        wrong += compare_unpaired(list(a), list(b)).verdict in (Verdict.WORSE, Verdict.BETTER)
    assert wrong < 0.05 * 2000


def test_a_side_without_launches_or_with_a_figure_of_nothing_is_refused() -> None:
    for before, now in (([], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0], [float("nan")])):
        with raising(ValueError):
            compare_unpaired(before, now)


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Baseline]:
    """A run whose shared graph takes half as long again as in the run before, and the two beside each other."""
    folder = tmp_path_factory.mktemp("slower")
    before = make_run(folder / "before", variants=MORE)
    now = make_run(folder / "now", variants=MORE, change=scaled("end_to_end_ns", 1.5))
    return now, compare_with(before, kpi_rows(before), now, kpi_rows(now))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("shared.end_to_end_ms.p50 > 1.05 * baseline.shared.end_to_end_ms.p50", 3),
        ("restyle.per_graph.end_to_end_ms.p50 > 1.05 * restyle.baseline.per_graph.end_to_end_ms.p50", 0),
        ("shared.end_to_end_ms.change_low > 1.05", 3),
        ("shared.end_to_end_ms.change > 2", 0),
        ("shared.vae_encoder_ms.change > 2", 0),
        ("baseline.worse > 0", 3),
        ("baseline.better > 0", 0),
        ("shared.psnr_db < baseline.shared.psnr_db", 0),
        ("ratio.switch < 0.9 * baseline.ratio.switch", 0),
        ("shared.end_to_end_ms.worse", 3),
        ("per_graph.end_to_end_ms.worse or restyle.shared.end_to_end_ms.better", 0),
        ("shared.vae_encoder_ms.worse", 0),
        ("shared.psnr_db.worse", 0),
        ("restyle.shared.psnr_db.same and restyle.shared.end_to_end_ms.worse", 1),
    ],
)
def test_a_condition_may_name_the_baseline(text: str, count: int, slower: tuple[RunResult, Baseline]) -> None:
    now, baseline = slower
    condition = read_condition(text, TASKS, has_baseline=True)
    assert len(met_places(condition, kpi_rows(now), quality_rows(now), baseline)) == count


def test_a_verdict_is_a_condition_alone_and_is_told_with_what_it_was_reached_by(slower: tuple[RunResult, Baseline]) -> None:
    now, baseline = slower
    condition = read_condition("restyle.shared.end_to_end_ms.worse", TASKS, has_baseline=True)
    (met,) = met_places(condition, kpi_rows(now), quality_rows(now), baseline)
    says(met, "restyle.shared.end_to_end_ms.worse", "virtual:s25")
    without = met_places(condition, kpi_rows(now), quality_rows(now), None)
    reads(without, "restyle.shared.end_to_end_ms.worse", "virtual:s25")


@pytest.mark.parametrize("text", ["shared.end_to_end_ms.p50", "baseline.worse", "shared.psnr_db"])
def test_nothing_but_a_verdict_is_a_condition_alone(text: str) -> None:
    with raising(UserError):
        read_condition(text, TASKS, has_baseline=True)


def test_a_condition_on_a_change_without_an_interval_never_passes(tmp_path: Path) -> None:
    run = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED))
    baseline = compare_with(run, kpi_rows(run), run, kpi_rows(run))
    condition = read_condition("shared.end_to_end_ms.change_low > 1.05", TASKS, has_baseline=True)
    says(met_places(condition, kpi_rows(run), quality_rows(run), baseline)[0])


@pytest.mark.parametrize(
    "text", ["baseline.shared.psnr_db > 3", "shared.switch_ms.worse", "shared.switch_ms.change_low > 1", "baseline.worse > 0"]
)
def test_a_condition_on_a_baseline_needs_one(text: str) -> None:
    with raising(UserError):
        read_condition(text, TASKS)


@pytest.mark.parametrize(
    "text", ["baseline.nothing > 3", "baseline.shared.switch_ms.change > 1", "shared.change > 1", "baseline.x.y > 1"]
)
def test_a_name_that_no_baseline_has_is_answered_with_the_known_ones(text: str) -> None:
    with raising(UserError):
        read_condition(text, TASKS, has_baseline=True)


def test_what_cannot_be_a_baseline_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with raising(UserError):
        require_comparable(run, TASKS, ["virtual:s25"], run.run_id)
    with raising(UserError, "restyle", "remove-object"):
        require_comparable(run, ["mine"], ["virtual:s25"])
    require_comparable(run, (*TASKS, "mine"), ["virtual:s25"])
    with raising(UserError, "virtual:s25"):
        require_comparable(run, TASKS, ["virtual:s25", "local"])


def test_the_report_has_the_comparison_with_its_doubt(tmp_path: Path) -> None:
    before, now = make_run(tmp_path / "before"), replace(make_run(tmp_path / "now"), run_id="now")
    page = Page(render_html(now, Layout(tmp_path / "now"), before))
    assert page.wrong == []
    says(page.text, "quadbench compare", "20260102-030405-quickstart", "--devices", "virtual:s25")
    assert report_view(now, Layout(tmp_path / "now")).baseline is None


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A results folder with the stored run, and the run `later`, whose shared graph is slower by half. Not to be changed."""
    folder = tmp_path_factory.mktemp("two")
    layout = stored_below(folder)
    bundle = load_run(layout, RUN).stored.folder.name
    save_run(layout, RunFile(run_id="later", bundle=bundle, deployments=(), is_ended=True))
    with open_records(layout.database) as records:
        for record in make_run(folder / "later", change=scaled("end_to_end_ns", 1.5)).records:
            began = record.started_at + timedelta(days=1)
            records.store(replace(record, record_id=f"later-{record.launch}", run_id="later", started_at=began, ended_at=began))
    return layout


@pytest.fixture
def results(two_runs: Layout, tmp_path: Path) -> Layout:
    """A copy of that folder."""
    return Layout(shutil.copytree(two_runs.root, tmp_path / "results"))


def test_a_stored_run_is_held_against_an_earlier_one(results: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--baseline", RUN, "--results", str(results.root)]
    assert main(["show", "later", *words]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"quadbench compare {RUN} later --devices virtual:s25" in shown
    says(shown)
    condition = ["--fail-if", "restyle.shared.end_to_end_ms.change > 1.2"]
    assert main(["report", "later", *words, "--json", *condition]) == 8
    told = json.loads(capsys.readouterr().out)
    assert told["baseline"]["run_id"] == RUN
    assert len(told["conditions_met"]) == 1
    says(results.report("later").read_text())
    assert main(["report", "later", *words, "--format", "csv", *condition]) == 8


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["show", "later", "--baseline", "later"], 2, ""),
        (["report", "later", "--baseline", "nothing"], 2, "nothing"),
        (["run", "quickstart", "--devices", "local", "--baseline", RUN], 2, ""),
        (["report", "later", "--fail-if", "baseline.worse > 0"], 2, "--baseline"),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused_before_anything_is_done(
    two_runs: Layout, words: list[str], code: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--results", str(two_runs.root)]) == code
    says(capsys.readouterr().err, reason)
    assert not two_runs.report("later").exists()


@pytest.mark.parametrize(
    ("baseline", "code", "told"),
    [(RUN, 2, "virtual:tabs11"), ("latest", 0, "")],
)
def test_a_baseline_fits_the_devices_that_a_farm_has_chosen(
    results: Layout, baseline: str, code: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_planned(results, RUN)
    later = load_run(results, "later")
    records = [replace(one, device=replace(one.device, address="virtual:tabs11")) for one in later.records]
    outcome = RunOutcome(result=replace(later, records=tuple(records)), report=results.report("later"), failures={})
    monkeypatch.setenv("QUADBENCH_DATABASE", "")  # put back at the end: --farm sets it
    monkeypatch.setattr(cli_run, "run_on_farm", lambda *_: outcome)
    monkeypatch.setattr(cli_run, "_source", lambda _: BundleSource(bundle=later.stored, terms=RunSettings()))
    words = ["run", "quickstart", "--devices", "tabs11", "--farm", f"sqlite:///{results.database}", "--baseline", baseline]
    assert main([*words, "--results", str(results.root), "--json"]) == code
    said = capsys.readouterr()
    says(said.err, told)
    assert not json.loads(said.out).get("baseline")


def test_a_folder_without_runs_has_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "quickstart", "--baseline", "earlier", "--devices", "local", "--results", str(tmp_path / "empty")]
    assert main(words) == 2
    says(capsys.readouterr().err)


def as_planned(layout: Layout, run_id: str, **changes: object) -> None:
    """Have a run be one that came to its end as planned, but for the changes."""
    save_run(layout, replace(read_run_file(layout, run_id), planned={Variant.SHARED: 2}, is_ended=True, **changes))


def test_the_latest_whole_run_before_is_a_baseline(results: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", "--results", str(results.root), "--baseline", "latest", "--json"]
    as_planned(results, RUN)
    as_planned(results, "later")
    assert main([*words, "later", "--fail-if", "restyle.shared.end_to_end_ms.worse"]) == 8
    assert json.loads(capsys.readouterr().out)["baseline"]["run_id"] == RUN
    assert main([*words, RUN]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["baseline"] is None
    says(output.err, "quickstart", "virtual:s25")


def test_the_latest_before_an_old_run_is_none_of_the_later_ones(
    results: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quadbench.study.stored_studies._LOOKED_AT", 1)
    as_planned(results, RUN)
    as_planned(results, "later")
    assert main(["report", "--results", str(results.root), "--baseline", "latest", "--json", RUN]) == 0
    assert json.loads(capsys.readouterr().out)["baseline"] is None


@pytest.mark.parametrize(
    "changes", [{"is_ended": False}, {"planned": {}}, {"swept": {"lora": "int8"}}, {"left_out": {"local": "it was away"}}]
)
def test_a_run_that_was_cut_short_or_is_of_a_study_is_not_the_latest(
    results: Layout, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    as_planned(results, "later")
    as_planned(results, RUN)
    save_run(results, replace(read_run_file(results, RUN), **changes))
    words = ["report", "later", "--results", str(results.root), "--baseline", "latest"]
    assert main(words) == 0
    says(capsys.readouterr().err)


def test_without_an_earlier_run_a_condition_on_the_latest_counts_as_met(
    results: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", "later", "--results", str(results.root), "--baseline", "latest"]
    assert main([*words, "--fail-if", "shared.end_to_end_ms.worse"]) == 8
    said = " ".join(capsys.readouterr().err.split())
    says(said, "shared.end_to_end_ms.worse")
    assert main([*words, "--fail-if", "shared.psnr_db < 3"]) == 0
