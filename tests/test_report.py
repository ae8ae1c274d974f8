"""The report is one valid file of its own, whose headline and tables fit what was run, and it says what is missing."""

import csv
import io
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.report_page import Page, row_of
from support.sentences import raising, reads, says
from support.synthetic_run import ABBA, S25, TABS11, failed
from support.synthetic_run import make_run as make_run_of

from quadbench.artifacts import Caveat, Component, ErrorClass, Graph, RunRecord, Sample, Status, Variant
from quadbench.artifacts.bundle import ClippedTensor, Clipping, HeldOutScores, StepSqnr, TrajectorySqnr
from quadbench.errors import ArtifactError
from quadbench.harness.event_log import EVENTS
from quadbench.report.condition import met_places, read_condition
from quadbench.report.formatting import Unit, pieces, to_csv
from quadbench.report.html import render_html, write_report
from quadbench.report.kpi import NO_OWN_GRAPH, Figure, kpi_rows
from quadbench.report.scores import quality_rows
from quadbench.report.tables import KPI, kpi_table, named_tables
from quadbench.report.view import report_view
from quadbench.results.layout import Layout

make_run = partial(make_run_of, iterations=2)  # what is counted here is not how often an image was painted


def test_the_page_is_balanced_html_with_captions_and_scopes(tmp_path: Path) -> None:
    page = Page(render_html(make_run(tmp_path, devices=(S25, TABS11), items=6), Layout(tmp_path)))
    assert page.wrong == []
    assert page.open == []
    assert page.count("table") == page.count("caption") > 8
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.elements if tag == "img")
    assert page.count("h1") == 1


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    html = render_html(make_run(tmp_path), Layout(tmp_path))
    page = Page(html)
    sources = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert page.count("script") == 0
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(value and value.startswith(("data:image/png;base64,", "#")) for value in sources)
    assert not re.search(r"url\(|@import", html)
    assert set(re.findall(r"https?://[^\"' <]*", html)) <= {"http://www.w3.org/2000/svg"}


def test_names_and_prompts_are_escaped(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    bundle = replace(result.bundle, recipe_name="<script>alert(1)</script>")
    html = render_html(replace(result, stored=replace(result.stored, artifact=bundle)), Layout(tmp_path))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "a &lt;red&gt; &amp; &#34;round&#34; face no. 0" in html


def test_only_what_lies_apart_stands_in_colour_and_never_the_same_file(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        slow = 3.0 if record.variant is Variant.SHARED else 1.0
        return replace(record, samples=tuple(replace(s, value=s.value * slow) for s in record.samples))

    result = make_run(tmp_path, change=change)
    rows = {key: row_of(result, "restyle", key) for key in ("unet_step", "vae_decoder", "text_encoder")}
    assert {key: row.is_apart for key, row in rows.items()} == {"unet_step": True, "vae_decoder": False, "text_encoder": False}
    html = render_html(result, Layout(tmp_path))
    assert re.search(r'row-unet_step.*?class="num ratio worse"', html, re.DOTALL)
    assert not re.search(r'<tr class="row-vae_decoder">(?:(?!</tr>).)*ratio (?:worse|better)', html, re.DOTALL)
    alone = make_run(tmp_path / "one", variants=(Variant.SHARED, Variant.PER_GRAPH), change=change)
    assert not row_of(alone, "restyle", "unet_step").is_apart  # one launch each cannot tell


def test_every_figure_table_of_a_virtual_device_says_so(tmp_path: Path) -> None:
    html = render_html(make_run(tmp_path), Layout(tmp_path))
    assert Caveat.VIRTUAL_DEVICE.doubt in Page(html).text
    captions = re.findall(r"<caption>.*?</caption>", html, re.DOTALL)
    told = [caption for caption in captions if "LoRA restyle" in caption]
    assert told
    assert all("virtual device</span>" in caption for caption in told)
    untold = [caption for caption in captions if re.search("Bytes on|Mean PSNR|against Python", caption)]
    assert len(untold) == 3  # its files and pictures are a phone's
    assert not any("virtual device</span>" in caption for caption in untold)


def test_an_emulator_s_times_are_left_out_everywhere_and_said_to_be(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        emulated = () if record.variant is Variant.FLOAT else (Caveat.EMULATED_NPU,)
        return replace(record, caveats=(*record.caveats, *emulated))

    result = make_run(tmp_path, variants=ABBA * 6, change=change)
    view = report_view(result, Layout(tmp_path))
    rows = [row for row in view.kpis[0].tasks[0].rows if isinstance(row.shared, Figure)]
    assert {row.unit for row in rows} == {Unit.MEGABYTES}
    assert len(rows) == 4
    assert not view.kpis[0].shares
    assert {verdict.title for verdict in view.kpis[0].verdicts} == {"Peak RAM, running"}
    figures = [figure for sentence in view.headline for figure in pieces(sentence)[1::2]]
    assert figures[:4] == ["53 %", "30.0 MB", "64.0 MB", "53 % less"]
    assert figures[-2:] == ["38.5 dB", "38.0 dB"]
    text = Page(render_html(result, Layout(tmp_path))).text
    says(text)
    assert Caveat.EMULATED_NPU.doubt in text
    lines = [line for line in csv.DictReader(io.StringIO(to_csv(named_tables(result, KPI)))) if line["unit"] == "ms"]
    assert {line["shared_median"] + line["per_graph_median"] + line["ratio"] for line in lines} == {""}
    reads({line["note"] for line in lines if line["figure"] == "switch"}, "per-graph")
    assert all(row[3] in ("emulated", "n/a") for row in kpi_table(result).rows if row[2] == "ms")


def test_an_emulated_phone_says_nothing_of_time_or_memory(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return replace(record, caveats=(*record.caveats, Caveat.EMULATED_CPU))

    result = make_run(tmp_path, variants=ABBA * 6, change=change)
    view = report_view(result, Layout(tmp_path))
    rows = [row for task in view.kpis[0].tasks for row in task.rows]
    assert {row.key for row in rows if isinstance(row.shared, Figure)} == {"foundation_rom", "lora_rom"}
    assert {row.shared for row in rows if "ram" in row.key} == {"an emulator's memory"}
    assert {row.ratio for row in rows if not row.is_exact} == {None}
    assert view.kpis[0].verdicts == ()
    text = Page(render_html(result, Layout(tmp_path))).text
    assert "as much memory" not in text
    assert "less memory" not in text
    assert all(row[3] in ("emulated", "n/a") for row in kpi_table(result).rows if "RAM" in row[1] or row[2] == "ms")


def test_too_few_samples_of_the_float_launch_are_no_doubt(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        few = (Caveat.FEW_SAMPLES,) if record.variant is Variant.FLOAT else ()
        return replace(record, caveats=(*record.caveats, *few))

    doubts = report_view(make_run(tmp_path, change=change), Layout(tmp_path)).doubts
    assert [doubt.caveat for doubt in doubts] == [Caveat.VIRTUAL_DEVICE]


def test_several_tables_are_summed_up_first(tmp_path: Path) -> None:
    view = report_view(make_run(tmp_path, devices=(S25, TABS11)), Layout(tmp_path))
    assert [(line.device.address, line.task) for line in view.glance][2:4] == [
        ("virtual:s25", "draw"),
        ("virtual:tabs11", "restyle"),
    ]
    assert [row.key for row in view.glance[0].rows] == ["end_to_end", "switch", "peak_ram"]


def test_further_items_are_folded(tmp_path: Path) -> None:
    page = Page(render_html(make_run(tmp_path, items=6), Layout(tmp_path)))
    folds = [attributes.get("class") for tag, attributes in page.elements if tag == "details"]
    assert folds.count(None) == 3
    says(page.text, 2)
    assert page.count("img") == 6 * (6 + 7 + 5) + 6  # restyle, remove-object with its truth besides, draw


def test_a_missing_picture_is_named_in_its_place(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    (result.stored.folder / "reference/restyle/001.png").unlink()
    assert "missing: 001.png" in Page(render_html(result, Layout(tmp_path))).text


def test_an_image_that_is_another_than_was_painted_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result, layout = make_run(tmp_path), Layout(tmp_path)
    record = result.records[1]
    image, other = (layout.file(record.images[f"draw/{item}"]) for item in ("000", "001"))
    events = layout.launch(record.run_id, record.device.address, record.variant, record.launch) / EVENTS
    shutil.copyfile(other, image)
    with raising(ArtifactError, image, events):
        write_report(result, layout)
    assert not layout.report(result.run_id).exists()
    events.write_text(events.read_text().replace('"draw"', "draw"))
    with raising(ArtifactError, events):
        write_report(result, layout)
    events.unlink()
    assert write_report(result, layout).exists()
    says(caplog.text, events)


def test_a_launch_that_wrote_nonsense_and_announced_an_image_twice_is_reported_too(tmp_path: Path) -> None:
    result, layout = make_run(tmp_path), Layout(tmp_path)
    record = result.records[1]
    events = layout.launch(record.run_id, record.device.address, record.variant, record.launch) / EVENTS
    said = events.read_text()
    again = re.sub("[0-9a-f]{64}", "0" * 64, said)
    assert again != said
    events.write_text(f'{said}\n{{"event": "image", broken\n\x80{again}')
    assert write_report(result, layout).exists()


def test_a_file_that_is_no_png_is_named_in_its_place(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    (result.stored.folder / "reference/restyle/001.png").write_text("<svg/>")
    says(Page(render_html(result, Layout(tmp_path))).text, "001.png")


def test_write_report_leaves_one_whole_file(tmp_path: Path) -> None:
    result = make_run(tmp_path)
    path = write_report(result, Layout(tmp_path))
    assert path == tmp_path / "reports" / f"{result.run_id}.html"
    assert path.read_text("utf-8") == render_html(result, Layout(tmp_path))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_failed_launches_stand_at_the_top_with_their_reason(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        reason = "harness was killed by signal 9 (SIGKILL)"
        return replace(failed(record, reason), error_class=ErrorClass.HARNESS) if record.launch == 3 else record

    text = Page(render_html(make_run(tmp_path, change=change), Layout(tmp_path))).text
    says(text, 1, 5, 4, "per-graph", "virtual:s25", 9)


def test_launches_that_were_repeated_are_no_failures(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return replace(record, status=Status.DISCARDED, reason="it was hot") if record.launch in (1, 2) else record

    text = Page(render_html(make_run(tmp_path, change=change), Layout(tmp_path))).text
    assert "not OK" not in text
    says(text, 3, 2)


def test_a_run_in_which_all_launches_failed_renders(tmp_path: Path) -> None:
    page = Page(render_html(make_run(tmp_path, change=lambda record: failed(record, "no room")), Layout(tmp_path)))
    assert page.wrong == []
    says(page.text, 5)


def test_a_run_without_launches_renders(tmp_path: Path) -> None:
    result = replace(make_run(tmp_path), records=(), deployments=())
    page = Page(render_html(result, Layout(tmp_path)))
    assert page.wrong == []
    says(page.text)
    assert kpi_rows(result) == ()


def test_a_run_without_baseline_says_that_nothing_was_compared(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED))
    text = Page(render_html(result, Layout(tmp_path))).text
    says(text)
    assert row_of(result, "restyle", "end_to_end").per_graph == "not run"
    says(text, "virtual:s25", 3, "30.0")


def test_an_admitted_adapter_costs_the_other_tasks_no_per_graph_figure(tmp_path: Path) -> None:
    """The third task, `draw`, has no graph of its own, as that of an admitted adapter."""
    whole = make_run(tmp_path, iterations=10)
    graphs = tuple(
        Graph(variant=Variant.PER_GRAPH, component=Component.UNET, task=task.name, file=task.table, inputs=(), outputs=())
        for task in whole.bundle.tasks[:2]
    )
    stored = replace(whole.stored, artifact=replace(whole.bundle, graphs=graphs))

    def of_two(record: RunRecord) -> RunRecord:
        kept = tuple(s for s in record.samples if "draw" not in (s.task, s.labels.get("unet"), s.labels.get("from")))
        return record if record.variant is not Variant.PER_GRAPH else replace(record, samples=kept)

    result = replace(whole, stored=stored, records=tuple(map(of_two, whole.records)))
    text = Page(render_html(result, Layout(tmp_path))).text
    assert row_of(result, "restyle", "end_to_end") == row_of(whole, "restyle", "end_to_end")
    assert row_of(result, "draw", "end_to_end").per_graph == NO_OWN_GRAPH
    says(text, "Per-graph", 3, "30.0")  # two graphs are no sum of three tasks
    ratio = read_condition("ratio.end_to_end < 0.1", [task.name for task in result.bundle.tasks])
    assert met_places(ratio, kpi_rows(result), quality_rows(result)) == ()


def test_a_run_that_was_cut_short_before_its_baseline_says_so(tmp_path: Path) -> None:
    planned = {Variant.FLOAT: 1, Variant.SHARED: 2, Variant.PER_GRAPH: 2}
    result = replace(make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED)), planned=planned, is_cut_short=True)
    text = Page(render_html(result, Layout(tmp_path))).text
    says(text, 2, 5)


def test_a_run_of_the_baseline_alone_renders(tmp_path: Path) -> None:
    page = Page(render_html(make_run(tmp_path, variants=(Variant.PER_GRAPH,)), Layout(tmp_path)))
    assert page.wrong == []
    says(page.text)


def test_launches_without_samples_say_so(tmp_path: Path) -> None:
    result = make_run(tmp_path, change=lambda record: replace(record, samples=()))
    text = Page(render_html(result, Layout(tmp_path))).text
    says(text)
    assert row_of(result, "restyle", "end_to_end").shared == "not measured"
    says(text)


def test_a_run_without_truth_images_says_so(tmp_path: Path) -> None:
    page = Page(render_html(make_run(tmp_path, with_truth=False), Layout(tmp_path)))
    says(page.text)
    assert "Truth" not in [text.strip() for text in page.texts]


def test_a_run_without_float_launch_says_that_parity_is_not_known(tmp_path: Path) -> None:
    view = report_view(make_run(tmp_path, variants=ABBA[1:]), Layout(tmp_path))
    assert {parity.worst_steps for parity in view.parity} == {"not run"}
    says(view.gaps)


def test_parity_is_the_worst_pixel_of_the_float_launch(tmp_path: Path) -> None:
    view = report_view(make_run(tmp_path), Layout(tmp_path))
    assert [parity.task for parity in view.parity] == ["restyle", "remove-object", "draw"]
    assert {(parity.worst_steps, parity.images) for parity in view.parity} == {(1.0, 2)}


def _counted(record: RunRecord) -> RunRecord:
    """Return the record as one of a CPU whose U-Net computes everything in float."""
    counts = {"in_integers": 0, "in_float": 525, "quantize": 552, "dequantize": 1183}
    nodes = (
        Sample(metric="kernel_nodes", value=number, component="unet", labels={"unet": "base", "kind": kind})
        for kind, number in counts.items()
    )
    return replace(record, samples=(*record.samples, *nodes))


def test_the_nodes_that_a_cpu_computes_in_float_stand_beside_its_times(tmp_path: Path) -> None:
    result = make_run(tmp_path, change=_counted)
    (table,) = report_view(result, Layout(tmp_path)).kernels
    assert table.rows == (("unet", "all tasks", "0", "525", "552", "1,183"),)
    page = Page(render_html(result, Layout(tmp_path)))
    assert not page.open
    assert not page.wrong
    assert "1,183" in page.texts
    assert report_view(make_run(tmp_path / "uncounted"), Layout(tmp_path)).kernels == ()


def test_the_worst_step_and_what_clips_are_shown(tmp_path: Path) -> None:
    steps = tuple(StepSqnr(step=i, timestep=900.0 - i, sqnr_db=db) for i, db in enumerate((44.6, 41.0, 33.8)))
    held_out = HeldOutScores(
        inputs=4,
        trajectories=(TrajectorySqnr(task="restyle", variant="shared", inputs=4, sqnr_db=40.1, steps=steps),),
        clippings=(
            Clipping(
                variant="shared",
                task=None,
                runs=64,
                tensors=500,
                clipped=1,
                share=2e-6,
                worst=(ClippedTensor(tensor="add_7", share=0.0123, beyond=0.25),),
            ),
        ),
    )
    run = make_run(tmp_path)
    result = replace(run, stored=replace(run.stored, artifact=replace(run.bundle, held_out=held_out)))
    trajectory, clipping = report_view(result, Layout(tmp_path)).held_out
    assert trajectory.rows == (("restyle", "shared", "40.1", "33.8", "3 of 3", "44.6", "33.8"),)
    assert clipping.rows == (("shared", "2e-06", "1 of 500", "add_7 1.2 %, 0.25"),)
    page = Page(render_html(result, Layout(tmp_path)))
    assert not page.open
    assert not page.wrong
    assert "SQNR of eps at each step of restyle" in page.texts


def test_the_report_says_what_was_run(tmp_path: Path) -> None:
    result = replace(make_run(tmp_path), recipe="name: <mine>\n", swept={"precision.lora": "int8"})
    text = Page(render_html(result, Layout(tmp_path))).text
    says(text, "w8a16", 8, 16)
    assert "recipe c1c1c1c1c1c1" in text
    says(text, "precision.lora", "int8")
    assert "name: <mine>" in text
    assert "Of a sweep" not in Page(render_html(make_run(tmp_path / "alone"), Layout(tmp_path))).text


def test_the_report_has_the_command_that_runs_the_same_again(tmp_path: Path) -> None:
    result = replace(make_run(tmp_path, devices=(S25, TABS11)), recipe="name: quickstart\n")
    text = Page(render_html(result, Layout(tmp_path))).text
    says(text, "quadbench run quickstart", "--devices", "virtual:s25,virtual:tabs11", "--results", tmp_path)
