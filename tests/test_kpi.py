"""A run's figures: the median over launches, what each holds, the bytes of a count of tasks, and the verdict of whole blocks."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from support.report_page import Page, row_of
from support.sentences import reads, says
from support.synthetic_run import ABBA, MB, failed, make_run

from quadbench.artifacts import Caveat, RunRecord, RunResult, Sample, Status, Variant
from quadbench.artifacts.caveats import FigureKind
from quadbench.report.html import render_html
from quadbench.report.kpi import Figure
from quadbench.report.launches import whole_blocks
from quadbench.report.storage import stored_growth
from quadbench.report.view import report_view
from quadbench.results.layout import Layout
from quadbench.statistics import Verdict


def figure_of(cell: Figure | str) -> Figure:
    assert isinstance(cell, Figure), cell
    return cell


def test_a_figure_is_the_median_of_the_launches_medians_with_the_lowest_and_highest_launch(tmp_path: Path) -> None:
    launches = {1: [10e6, 11e6, 99e6], 4: [20e6, 21e6, 22e6]}

    def change(record: RunRecord) -> RunRecord:
        values = launches.get(record.launch, [15e6])
        return replace(record, samples=tuple(Sample(metric="unet_ns", value=value, task="restyle") for value in values))

    shared = figure_of(row_of(make_run(tmp_path, change=change), "restyle", "unet_step").shared)
    assert (shared.value, shared.low, shared.high) == (16e6, 11e6, 21e6)
    assert (shared.launches, shared.samples, shared.p90) == (2, 6, None)


def test_warm_up_does_not_count(tmp_path: Path) -> None:
    end_to_end = figure_of(row_of(make_run(tmp_path, iterations=10), "restyle", "end_to_end").shared)
    assert end_to_end.samples == 2 * 11  # ten iterations and the image after the second switch
    assert end_to_end.high < 300e6


def test_a_sample_far_from_the_others_of_its_launch_counts_and_is_counted(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        values = [10e6, 10.1e6, 9.9e6, 10.2e6, 99e6]
        return replace(record, samples=tuple(Sample(metric="unet_ns", value=value, task="restyle") for value in values))

    result = make_run(tmp_path, change=change)
    shared = figure_of(row_of(result, "restyle", "unet_step").shared)
    assert (shared.samples, shared.outliers, shared.value) == (2 * 5, 2, 10.1e6)
    assert "2 × 5, 2 far" in render_html(result, Layout(tmp_path))


@pytest.mark.parametrize("variant", [Variant.PER_GRAPH, Variant.MERGED_AT_LOAD])
def test_sides_that_met_different_environments_are_a_doubt(variant: Variant, tmp_path: Path) -> None:
    def newer(record: RunRecord) -> RunRecord:
        is_newer = record.variant is variant
        return replace(record, versions={"runtime": "1.33.0" if is_newer else "1.32.0"})

    def fewer_images(record: RunRecord) -> RunRecord:
        """As of a variant that has no graph for an adapter that came later."""
        last = max(n for n, sample in enumerate(record.samples) if sample.metric == "end_to_end_ns")
        samples = record.samples[:last] + record.samples[last + 1 :]
        return replace(record, samples=samples) if record.variant is variant else record

    def run_of(folder: Path, change: Callable[[RunRecord], RunRecord]) -> RunResult:
        return make_run(folder, variants=(Variant.SHARED, variant), change=change)

    def doubts(result: RunResult, folder: Path) -> list[Caveat]:
        return [doubt.caveat for doubt in report_view(result, Layout(folder)).doubts]

    assert Caveat.CHANGED_ENVIRONMENT not in doubts(run_of(tmp_path / "same", lambda record: record), tmp_path / "same")
    assert Caveat.CHANGED_ENVIRONMENT not in doubts(run_of(tmp_path / "fewer", fewer_images), tmp_path / "fewer")
    assert Caveat.CHANGED_ENVIRONMENT in doubts(run_of(tmp_path / "newer", newer), tmp_path / "newer")


def test_ratio_is_per_graph_over_shared(tmp_path: Path) -> None:
    row = row_of(make_run(tmp_path), "restyle", "switch")
    assert row.ratio == figure_of(row.per_graph).value / figure_of(row.shared).value
    assert row.ratio == pytest.approx(2000, rel=0.05)


def test_only_a_switch_from_another_task_counts_as_one(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    assert figure_of(row_of(result, "restyle", "switch").shared).samples == 2 * 1
    assert figure_of(row_of(result, "restyle", "first_unet").shared).samples == 2 * 1
    assert figure_of(row_of(result, "draw", "switch").shared).samples == 2 * 2


def test_the_first_image_after_a_switch_holds_the_switch_warm_up_or_not(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    keys = ("switch", "end_to_end", "first_image")
    switch, end_to_end, first = (figure_of(row_of(result, "draw", key).per_graph) for key in keys)
    assert first.samples == switch.samples == 2 * 2
    # Of a launch's two images after a switch the first is a warm-up, which takes three times as long here.
    assert first.value == pytest.approx(switch.value + 2 * end_to_end.value, rel=0.05)


def test_session_load_is_the_sum_of_what_the_task_runs(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    with_encoder, without = (figure_of(row_of(result, task, "session_load").shared).value for task in ("restyle", "draw"))
    assert with_encoder == pytest.approx(3 * 9e6 + 41e6, rel=0.05)
    assert without == pytest.approx(2 * 9e6 + 41e6, rel=0.05)


def test_rom_is_foundation_and_lora_apart_and_per_graph_counts_the_tasks_own_unet(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    foundation, lora = row_of(result, "remove-object", "foundation_rom"), row_of(result, "remove-object", "lora_rom")
    assert figure_of(foundation.shared).value == 27 * MB
    assert figure_of(foundation.per_graph).value == 26 * MB
    assert figure_of(lora.shared).value == 2 * MB
    reads(lora.per_graph)


def test_peak_ram_is_the_highest_block_of_a_launch(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        peaks = [Sample(metric="peak_rss_bytes", value=float(size * MB), task="restyle") for size in (50, 90, 60)]
        return replace(record, samples=tuple(peaks))

    assert figure_of(row_of(make_run(tmp_path, change=change), "restyle", "peak_ram").shared).value == 90 * MB


def test_text_to_image_has_no_vae_encoder_and_says_so(tmp_path: Path) -> None:
    row = row_of(make_run(tmp_path), "draw", "vae_encoder")
    assert row.shared == row.per_graph
    reads(row.per_graph)
    assert row.ratio is None


def test_a_percentile_needs_enough_samples(tmp_path: Path) -> None:
    result = make_run(tmp_path, iterations=10)
    assert figure_of(row_of(result, "restyle", "end_to_end").shared).p90 is None
    assert figure_of(row_of(result, "restyle", "unet_step").shared).p90 is not None


def test_a_failed_launch_gives_no_figures(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return replace(record, status=Status.FAILED, reason="wrong pictures") if record.launch == 4 else record

    assert figure_of(row_of(make_run(tmp_path, change=change), "restyle", "unet_step").shared).launches == 1


def test_bytes_for_the_first_tasks_add_adapters_to_the_base_or_unets_to_the_rest(tmp_path: Path) -> None:
    (storage,) = report_view(make_run(tmp_path), Layout(tmp_path)).storages
    assert [step.shared_bytes for step in storage.measured] == [28 * MB, 30 * MB, 30 * MB]
    assert [step.per_graph_bytes for step in storage.measured] == [26 * MB, 45 * MB, 64 * MB]


def test_bytes_beyond_the_tasks_are_extrapolated_with_the_mean_of_what_a_task_added(tmp_path: Path) -> None:
    (storage,) = report_view(make_run(tmp_path), Layout(tmp_path)).storages
    last = storage.extrapolated[-1]
    assert (last.count, last.task) == (10, None)
    assert last.shared_bytes == 30 * MB + 7 * 1.5 * MB
    assert last.per_graph_bytes == 64 * MB + 7 * 19 * MB


BUILT_IN = "foundation: {source: builtin, name: emoji-ldm}\n"


def test_a_run_of_the_built_in_model_has_the_stored_bytes_of_ten_tasks_beside_its_own(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    here = tuple(replace(record, target="onnxruntime-cpu-x86_64") for record in result.records)
    page = Page(render_html(replace(result, records=here, recipe=BUILT_IN), Layout(tmp_path)))
    says(page.text)
    growth = stored_growth("onnxruntime-cpu-x86_64", 3, BUILT_IN)
    assert growth is not None
    assert [count for count, _, _ in growth.shown] == [1, 2, 5, 10]
    assert len(growth.trained) == len(growth.random) == 5
    assert all(later[side] > earlier[side] for earlier, later in pairwise(growth.steps) for side in (1, 2))


@pytest.mark.parametrize(
    ("target", "recipe"),
    [
        ("qnn-v79-69", BUILT_IN),
        ("onnxruntime-cpu-x86_64", None),
        ("onnxruntime-cpu-x86_64", "no recipe: [at all"),
        ("onnxruntime-cpu-x86_64", "tasks: []\n"),
        ("onnxruntime-cpu-x86_64", "foundation: {source: diffusers, path: sd15}\n"),
    ],
)
def test_stored_bytes_are_not_shown_beside_another_model_or_target(target: str, recipe: str | None) -> None:
    assert stored_growth(target, 3, recipe) is None


def test_stored_bytes_are_not_shown_beside_as_many_tasks() -> None:
    assert stored_growth("onnxruntime-cpu-x86_64", 10, BUILT_IN) is None


def test_tasks_that_share_an_adapter_count_it_once(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    restyle, remove, draw = result.bundle.tasks
    bundle = replace(result.bundle, tasks=(restyle, replace(remove, adapter="restyle"), draw))
    (storage,) = report_view(replace(result, stored=replace(result.stored, artifact=bundle)), Layout(tmp_path)).storages
    assert [step.shared_bytes for step in storage.measured] == [28 * MB, 28 * MB, 28 * MB]


def test_blocks_of_launches_count_whole_mirrored_and_ok(tmp_path: Path) -> None:
    a, b = Variant.SHARED, Variant.PER_GRAPH
    assert len(whole_blocks(make_run(tmp_path, variants=(a, b, b, a, a, b, b, a)).records)) == 2
    assert len(whole_blocks(make_run(tmp_path, variants=(Variant.FLOAT, a, b, b, a, a, b)).records)) == 1
    c = Variant.RESIDENT
    assert len(whole_blocks(make_run(tmp_path, variants=(a, b, c, c, b, a)).records)) == 1
    assert whole_blocks(make_run(tmp_path, variants=(a, a, b, b)).records) == ()
    broken = make_run(tmp_path, change=lambda record: failed(record, "x") if record.launch == 2 else record)
    assert whole_blocks(broken.records) == ()


def test_figures_count_whole_blocks_and_what_that_leaves_out_is_said(tmp_path: Path) -> None:
    """A device slows down by 2 % a launch, and the shared launches from the fourth on fail: equal variants are equal."""

    def change(record: RunRecord) -> RunRecord:
        times = [replace(s, value=3e8 * 1.02**record.launch) if s.metric == "end_to_end_ns" else s for s in record.samples]
        slower = replace(record, samples=tuple(times))
        return failed(slower, "killed") if record.variant is Variant.SHARED and record.launch > 8 else slower

    result = make_run(tmp_path, variants=ABBA[1:] * 6, items=1, iterations=2, change=change)
    row = row_of(result, "restyle", "end_to_end")
    assert (row.blocks, figure_of(row.shared).launches, figure_of(row.per_graph).launches) == (2, 4, 4)
    assert row.ratio == pytest.approx(1.0, abs=0.001)
    assert row.judged is not None
    assert row.judged.ratio == pytest.approx(1.0)
    (gap,) = (gap for gap in report_view(result, Layout(tmp_path)).gaps if "no figure includes them" in gap)
    says(gap, 9, "virtual:s25")


def test_of_an_incomplete_block_no_launch_counts(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(*ABBA[1:], Variant.SHARED, Variant.PER_GRAPH))
    assert figure_of(row_of(result, "restyle", "end_to_end").shared).launches == 2


@pytest.mark.parametrize(
    "variants",
    [(Variant.SHARED,) * 3, (Variant.SHARED, Variant.PER_GRAPH), (Variant.SHARED,) * 3 + (Variant.PER_GRAPH,) * 3],
    ids=["one variant alone", "one launch of each", "one after the other"],
)
def test_without_whole_blocks_all_launches_count_and_nothing_is_judged(tmp_path: Path, variants: tuple[Variant, ...]) -> None:
    result = make_run(tmp_path, variants=variants, items=1, iterations=2)
    row = row_of(result, "restyle", "end_to_end")
    assert figure_of(row.shared).launches == variants.count(Variant.SHARED)
    assert (row.blocks, row.judged, row.claim) == (0, None, Verdict.INCONCLUSIVE)
    assert not any("no figure includes them" in gap for gap in report_view(result, Layout(tmp_path)).gaps)


def test_a_block_in_which_a_launch_lacks_a_figure_counts_in_no_side_of_it(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        kept = [s for s in record.samples if not (record.launch == 1 and s.metric == "end_to_end_ns")]
        return replace(record, samples=tuple(kept))

    result = make_run(tmp_path, variants=ABBA[1:] * 3, items=1, iterations=2, change=change)
    row = row_of(result, "restyle", "end_to_end")
    assert (row.blocks, figure_of(row.shared).launches, figure_of(row.per_graph).launches) == (2, 4, 4)
    assert row_of(result, "restyle", "unet_step").blocks == 3


def test_the_verdict_in_the_table_is_the_row_s_and_says_how_many_were_judged_together(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=ABBA[1:] * 6, items=1, iterations=2)
    view = report_view(result, Layout(tmp_path))
    told = {(verdict.task, verdict.title): verdict.verdict for verdict in view.kpis[0].verdicts}
    rows = [row for task in view.kpis[0].tasks for row in task.rows if (row.task, row.title) in told]
    assert {(row.task, row.title): row.claim for row in rows} == told
    assert {verdict.together for verdict in view.kpis[0].verdicts} == {len(rows)} == {12}
    says(Page(render_html(result, Layout(tmp_path))).text, 12)


def test_six_blocks_with_a_clear_difference_give_a_verdict(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=ABBA[1:] * 6, items=1, iterations=2)
    verdicts = report_view(result, Layout(tmp_path)).kpis[0].verdicts
    switch = next(verdict for verdict in verdicts if (verdict.task, verdict.title) == ("draw", "Switch to this task"))
    assert switch.verdict is Verdict.BETTER
    assert switch.ratio == pytest.approx(2000, rel=0.05)
    assert switch.low is not None
    assert switch.high is not None
    assert switch.low < switch.ratio < switch.high
    assert "BETTER" in Page(render_html(result, Layout(tmp_path))).text


@pytest.mark.parametrize("caveat", Caveat)
def test_every_caveat_says_what_it_doubts_and_what_to_do(caveat: Caveat) -> None:
    assert caveat.advice.endswith(".")
    assert any(caveat.is_about(kind) for kind in FigureKind)
    assert f"| {caveat.value} |" in (Path(__file__).parent.parent / "docs/report.md").read_text()
