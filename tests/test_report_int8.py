"""What of a U-Net runs in 8 bits stands in the report, below the figures and in a sweep, as it was achieved."""

from dataclasses import replace
from pathlib import Path

from support.sentences import says
from support.synthetic_run import make_run

from quadbench.artifacts import Component, FileRef, Graph, RunResult, Variant
from quadbench.artifacts.bundle import Int8Fraction, Int8Share
from quadbench.recipe.recipe import INT8_KEY
from quadbench.report.html import render_html
from quadbench.report.launches import int8_table
from quadbench.report.sweep import sweep_points
from quadbench.report.tables import kpi_table
from quadbench.results.layout import Layout

NOTHING = Int8Share(
    layers=Int8Fraction(int8=0, total=97),
    parameters=Int8Fraction(int8=0, total=1000),
    multiply_accumulates=Int8Fraction(int8=0, total=5000),
    lora_products=Int8Fraction(int8=0, total=0),
)
SOME = Int8Share(
    layers=Int8Fraction(int8=12, total=97),
    parameters=Int8Fraction(int8=183, total=1000),
    multiply_accumulates=Int8Fraction(int8=300, total=5000),
    lora_products=Int8Fraction(int8=0, total=124),
)


def _unet(variant: Variant, int8: Int8Share | None, task: str | None = None) -> Graph:
    file = FileRef(path=f"{variant.value}/unet.onnx", sha256="a1" * 32, size_bytes=10)
    return Graph(variant=variant, component=Component.UNET, task=task, file=file, inputs=(), outputs=(), int8=int8)


def _run_of(folder: Path, *graphs: Graph, precision: str = "mixed-20") -> RunResult:
    result = make_run(folder, variants=(Variant.FLOAT, Variant.SHARED))
    return replace(result, stored=replace(result.stored, artifact=replace(result.bundle, graphs=graphs, precision=precision)))


def test_each_quantized_unet_has_a_row(tmp_path: Path) -> None:
    graphs = (_unet(Variant.FLOAT, None), _unet(Variant.SHARED, SOME), _unet(Variant.PER_GRAPH, NOTHING, "restyle"))
    table = int8_table(_run_of(tmp_path, *graphs).bundle)
    assert table is not None
    assert table.title == "mixed-20"
    assert table.rows == (
        ("shared", "12.4 % (12 of 97)", "18.3 % (183 of 1,000)", "6.0 % (300 of 5,000)", "0.0 % (0 of 124)"),
        ("per-graph, restyle", "0.0 % (0 of 97)", "0.0 % (0 of 1,000)", "0.0 % (0 of 5,000)", "none"),
    )


def test_the_report_shows_what_was_achieved(tmp_path: Path) -> None:
    result = _run_of(tmp_path, _unet(Variant.SHARED, SOME))
    html = render_html(result, Layout(tmp_path))
    assert "18.3 % (183 of 1,000)" in html
    says(kpi_table(result).notes, "W8A8", "mixed-20", "18.3", 183, "1,000", "12.4", 12, 97)


def test_a_bundle_in_16_bits_needs_no_note(tmp_path: Path) -> None:
    result = _run_of(tmp_path, _unet(Variant.SHARED, NOTHING), precision="w8a16")
    assert not any("W8A8" in note for note in kpi_table(result).notes)


def test_a_bundle_that_was_built_before_this_was_counted_says_nothing(tmp_path: Path) -> None:
    result = _run_of(tmp_path, _unet(Variant.SHARED, None))
    assert int8_table(result.bundle) is None
    assert not any("W8A8" in note for note in kpi_table(result).notes)
    assert "In 8 bits" not in render_html(result, Layout(tmp_path))


def test_a_sweep_shows_the_share_that_was_achieved_beside_the_one_asked_for(tmp_path: Path) -> None:
    point = next(sweep_points({INT8_KEY: "20"}, _run_of(tmp_path, _unet(Variant.SHARED, SOME)), None))
    shown = {figure.key: (figure.value, figure.unit) for figure in point.figures if figure.key.startswith("int8_")}
    assert point.value == "20"
    assert shown == {"int8_parameters": (18.3, "%"), "int8_layers": (100 * 12 / 97, "%"), "int8_macs": (6.0, "%")}
