"""Sweeps: a recipe with several values of one key, and the figures of their runs beside each other."""

import csv
import io
import math
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.sentences import raising, says
from support.synthetic_run import S25, TABS11, failed, make_run

from quadbench.artifacts import Caveat, RunRecord, Status, Variant
from quadbench.artifacts.run_record import BetterDirection, ImageComparison, Metric, RunScores, Score
from quadbench.cli import main
from quadbench.devices.lab.leases import Leases, lease_name
from quadbench.errors import SpecError, UserError
from quadbench.recipe.recipe import INT8_KEY, load_recipe
from quadbench.report.sweep import Sweep, SweepPoint, change_from, sweep_points, with_best
from quadbench.report.sweep_answer import _number, sweep_csv, sweep_tables
from quadbench.report.sweep_charts import cost_chart, sweep_chart
from quadbench.results.engine import open_engine
from quadbench.study.run_sweep import SweepAxis, parse_axis, vary_recipe

TASKS = ("restyle", "remove-object", "draw")
SSIM = Metric(name="ssim", title="SSIM", unit="", better=BetterDirection.HIGHER, definition="Structural similarity.")


def _points(folder: Path, value: str, psnr_db: tuple[float, float], **options: object) -> list[SweepPoint]:
    """Return the points of a synthetic run in which the two items of each task have these PSNRs."""
    of_item = dict(zip(("000", "001"), psnr_db, strict=True))

    def change_record(record: RunRecord) -> RunRecord:
        samples = tuple(
            replace(s, value=of_item[s.item]) if s.metric == "psnr_db" and s.labels["against"] == "reference" else s
            for s in record.samples
        )
        return replace(record, samples=samples)

    result = make_run(folder, variants=(Variant.FLOAT, Variant.SHARED), change=change_record, **options)
    scores = (Score(metric=SSIM, value=0.97, n=2),)
    compared = ImageComparison(task="restyle", device=S25.address, made="shared", against="reference", scores=scores)
    return list(sweep_points({INT8_KEY: value}, result, RunScores(compared=(compared,))))


def _sweep(folder: Path, *values: tuple[str, tuple[float, float]], published: str | None = None, **options: object) -> Sweep:
    points = [point for value, psnr_db in values for point in _points(folder / value, value, psnr_db, **options)]
    return Sweep(
        sweep_id="s", recipe_name="quickstart", keys=(INT8_KEY,), published=published, points=tuple(points), touched=TASKS
    )


def _row(sweep: Sweep, value: str, task: str = "restyle") -> dict[str, str]:
    table = next(table for table in sweep_tables(sweep) if f": {task} on" in table.title)
    return dict(zip(table.columns, next(row for row in table.rows if row[0] == value), strict=True))


def test_a_key_and_its_values_are_read() -> None:
    assert parse_axis("tasks.0.sampler.steps=4, 8") == SweepAxis(key="tasks.0.sampler.steps", values=("4", "8"))


@pytest.mark.parametrize("text", ["precision.lora", "=1,2", "runtime.threads=1,,2", "precision.lora=int8,int8"])
def test_what_is_no_key_with_values_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--over"):
        parse_axis(text)


def test_each_value_gives_the_recipe_with_it() -> None:
    for key in ("tasks.0.sampler.steps", "tasks[0].sampler.steps", "tasks.restyle.sampler.steps"):
        recipes = [variation.recipe for variation in vary_recipe("quickstart", [SweepAxis(key=key, values=("4", "8"))])]
        assert [recipe.tasks[0].sampler.steps for recipe in recipes] == [4, 8]
        assert {recipe.tasks[1].sampler.steps for recipe in recipes} == {4}


def test_several_keys_make_a_grid(capsys: pytest.CaptureFixture[str]) -> None:
    overs = [parse_axis("precision.lora=int16,int8"), parse_axis("tasks.restyle.sampler.steps=4,8")]
    variations = vary_recipe("quickstart", overs)
    assert [(v.recipe.precision.lora, v.recipe.tasks[0].sampler.steps) for v in variations] == [
        ("int16", 4), ("int16", 8), ("int8", 4), ("int8", 8)
    ]  # fmt: skip
    assert str(variations[0]) == "precision.lora=int16, tasks.restyle.sampler.steps=4"
    with raising(UserError, "--over", "precision.lora"):
        vary_recipe("quickstart", [overs[0], overs[0]])
    many = [parse_axis(f"{key}=1,2,3,4,5,6,7,8,9") for key in ("tasks.0.seed", "tasks.1.seed")]
    with raising(UserError, 9, 81, 64):
        vary_recipe("quickstart", many)


def test_one_key_in_two_spellings_is_refused() -> None:
    with raising(UserError):
        vary_recipe("quickstart", [parse_axis("tasks.restyle.seed=0,1"), parse_axis("tasks[0].seed=0,1")])


def test_a_switch_of_microseconds_is_no_zero_in_a_table() -> None:
    assert [_number(value, "ms") for value in (0.0101, 6.81, 1874.04, 0.0)] == ["0.01", "6.8", "1874.0", "0.0"]
    assert _number(0.00002, "") == "2e-05"


def test_a_share_of_8_bits_stands_for_the_scheme_that_has_it() -> None:
    variations = vary_recipe("quickstart", [parse_axis("precision.activations.int8=0,30")])
    assert [variation.recipe.precision.label for variation in variations] == ["mixed-0", "mixed-30"]


@pytest.mark.parametrize("key", ["precision.activations", pytest.param("precision.activations.scheme", marks=pytest.mark.slow)])
def test_the_word_that_reports_print_for_a_precision_is_a_value_of_a_sweep(key: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mixed.yaml"
    recipe.write_text(Path("recipes/quickstart.yaml").read_text().replace("{scheme: w8a16}", "mixed-30"))
    for source in ("quickstart", str(recipe)):
        labels = [v.recipe.precision.label for v in vary_recipe(source, [parse_axis(f"{key}=w8a16,w8a8,w8a32")])]
        assert labels == ["w8a16", "w8a8", "w8a32"]
        assert vary_recipe(source, [parse_axis(f"{key}=float")])[0].recipe.precision.label == "w8a32"


def test_a_sweep_has_no_baselines() -> None:
    assert load_recipe("quickstart").baselines
    assert not vary_recipe("quickstart", [parse_axis("precision.lora=int8")])[0].recipe.baselines


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ("precision.lora=int4", ("quickstart.yaml", "precision.lora=int4", "int16", "int8")),
        (
            "precision.activations=w8a4",
            ("quickstart.yaml", "precision.activations=w8a4", "w8a16", "w8a8", "w8a32"),
        ),
        ("quad.profile=unified", ("quad.profile=unified", "quad.profile.scheme")),
        ("tasks.restyle.sampler=lcm", ("tasks.restyle.sampler=lcm", "tasks[0].sampler.scheme", "olss")),
        (
            "precision.activations.int8=130",
            ("precision.activations.int8=130", "precision.activations.int8_percent", 0, 100),
        ),
        ("precision.lara=int8", ("precision.lara=int8", "lora")),
        ("tasks[7].seed=1", (2, "restyle", "remove-object", 7, "tasks[7].seed")),
        ("tasks.restile.seed=1", (2, "restyle", "remove-object", "restile")),
        ("precision.lora.bits=8", ("precision.lora", "int16", "bits")),
    ],
)
def test_a_value_or_key_that_does_not_fit_is_refused_as_in_a_file(over: str, reason: tuple[object, ...]) -> None:
    with raising(SpecError, *reason):
        vary_recipe("quickstart", [parse_axis(over)])


def test_values_are_not_converted() -> None:
    with raising(UserError, "010"):
        vary_recipe("quickstart", [parse_axis("tasks.0.seed=010")])


def test_a_point_holds_the_mean_over_items_and_its_standard_error(tmp_path: Path) -> None:
    point = _points(tmp_path, "0", (40.0, 44.0))[0]
    psnr = next(figure for figure in point.figures if figure.key == "psnr")
    assert (psnr.value, psnr.n) == (42.0, 2)
    assert psnr.error == pytest.approx(math.sqrt(8) / math.sqrt(2))
    assert {"ssim", "unet_step", "end_to_end"} <= {figure.key for figure in point.figures}


def test_a_change_is_that_of_the_same_items(tmp_path: Path) -> None:
    before, after = (_points(tmp_path / v, v, psnr_db)[0] for v, psnr_db in (("0", (40.0, 50.0)), ("20", (39.0, 49.0))))
    assert change_from(after, before, "psnr") == (-1.0, 0.0)
    assert _row(_sweep(tmp_path / "t", ("0", (40.0, 50.0)), ("20", (39.0, 49.0))), "20")["change"] == "-1.00 ± 0.00"


def test_images_too_far_from_the_reference_are_still_compared(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED))
    records = [replace(failed(record, "fast and wrong"), samples=record.samples) for record in result.records]
    point = next(sweep_points({INT8_KEY: "100"}, replace(result, records=tuple(records)), None))
    assert [figure.key for figure in point.figures] == ["psnr"]
    assert point.reason == "fast and wrong"


def test_a_launch_that_was_repeated_casts_no_doubt_and_one_that_failed_on_its_pictures_alone(tmp_path: Path) -> None:
    hot = (Caveat.THROTTLED, Caveat.UNEVEN_CALIBRATION)

    def points(status: Status) -> SweepPoint:
        def change(record: RunRecord) -> RunRecord:
            return replace(record, status=status, reason="too hot", caveats=hot) if record.launch == 1 else record

        variants = (Variant.FLOAT, Variant.SHARED, Variant.SHARED)
        return next(sweep_points({INT8_KEY: "0"}, make_run(tmp_path, variants=variants, change=change), None))

    told = {status: (points(status).reason, points(status).caveats) for status in (Status.DISCARDED, Status.FAILED)}
    usual = Caveat.VIRTUAL_DEVICE
    assert told[Status.DISCARDED] == (None, (usual,))
    assert told[Status.FAILED] == ("too hot", (Caveat.UNEVEN_CALIBRATION, usual))


def test_published_figures_stand_beside_those_of_the_same_value(tmp_path: Path) -> None:
    def printed(value: str) -> SweepPoint:
        result = make_run(tmp_path / value, variants=(Variant.FLOAT, Variant.SHARED))
        task = replace(result.bundle.tasks[0], name="prompt-guided-image-transformation")
        records = tuple(replace(r, samples=tuple(replace(s, task=task.name) for s in r.samples)) for r in result.records)
        stored = replace(result.stored, artifact=replace(result.bundle, tasks=(task,)))
        return next(
            sweep_points({INT8_KEY: value}, replace(result, stored=stored, records=records, published="quad-table-4"), None)
        )

    points = tuple(printed(value) for value in ("20", "30"))
    table = sweep_tables(
        Sweep(sweep_id="s", recipe_name="r", keys=(INT8_KEY,), published="quad-table-4", points=points, touched=TASKS)
    )[0]
    assert [row[table.columns.index("PSNR, published")] for row in table.rows] == ["32.6766", ""]
    assert any("QUAD paper" in note for note in table.notes)


def test_each_task_and_device_has_a_table(tmp_path: Path) -> None:
    tables = sweep_tables(_sweep(tmp_path, ("0", (40.0, 41.0)), ("50", (39.0, 40.0)), devices=(S25, TABS11)))
    assert len(tables) == 6
    assert all([row[0] for row in table.rows] == ["0", "50"] for table in tables)


def test_the_csv_has_a_line_for_each_figure_of_each_point(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path, ("0", (40.0, 44.0)), ("50", (39.0, 40.0)))
    rows = list(csv.DictReader(io.StringIO(sweep_csv(sweep))))
    assert len(rows) == sum(len(point.figures) for point in sweep.points)
    first = next(row for row in rows if (row[INT8_KEY], row["task"], row["figure"]) == ("0", "restyle", "psnr"))
    assert float(first["mean"]) == 42.0


def test_the_chart_is_an_svg_with_a_line_for_each_task_and_a_dot_for_each_value(tmp_path: Path) -> None:
    drawn = ElementTree.fromstring(sweep_chart(_sweep(tmp_path, ("0", (40.0, 44.0)), ("50", (39.0, 40.0)), ("100", (9.0, 9.5)))))
    names = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert names.count("polyline") == 3
    assert names.count("circle") == 9


def test_words_stand_at_equal_distances_and_numbers_where_they_belong(tmp_path: Path) -> None:
    def places(*values: str) -> list[float]:
        sweep = _sweep(tmp_path / values[0], *((value, (40.0, 41.0)) for value in values))
        drawn = ElementTree.fromstring(sweep_chart(sweep))
        return [float(e.get("cx", "")) for e in drawn.iter() if e.tag.endswith("circle")][: len(values)]

    words, numbers = places("int16", "int12", "int8"), places("0", "20", "80")
    assert words[1] - words[0] == pytest.approx(words[2] - words[1])
    assert (numbers[2] - numbers[1]) == pytest.approx(3 * (numbers[1] - numbers[0]))


def test_bytes_and_memory_and_the_likeness_to_truth_and_teacher_stand_beside_that_to_the_reference(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED))
    teacher = {("remove-object", S25.address): {"000": 30.0, "001": 32.0}}
    points = {point.task: point for point in sweep_points({"tasks.1.sampler.steps": "4"}, result, None, teacher)}
    figures = {figure.key: figure.value for figure in points["remove-object"].figures}
    assert (figures["psnr_teacher"], figures["psnr_truth"], figures["bytes"]) == (31.0, 25.0, 30.0)
    assert figures["peak_ram"] > 100
    sweep = Sweep(
        sweep_id="s",
        recipe_name="r",
        keys=("tasks.1.sampler.steps",),
        published=None,
        points=tuple(points.values()),
        touched=TASKS,
    )
    table = next(table for table in sweep_tables(sweep, is_whole=False) if ": remove-object on" in table.title)
    likeness = ("PSNR, dB", "PSNR to teacher, dB", "PSNR to truth, dB")
    assert table.columns == ("steps", *likeness, "End to end, ms", "All files, MB", "Peak RAM, running, MB")
    assert "PSNR to teacher" not in " ".join(sweep_tables(sweep, is_whole=False)[0].columns)


def test_the_bytes_of_a_device_are_its_own_or_not_known(tmp_path: Path) -> None:
    twin, broken = replace(TABS11, address="tabs11b", serial="3"), replace(TABS11, address="tabs11c", serial="4")

    def change(record: RunRecord) -> RunRecord:
        if record.device == broken:
            return failed(record, "killed")
        smaller = [replace(s, value=s.value / 2) if s.metric == "rom_bytes" else s for s in record.samples]
        return record if record.device == S25 else replace(record, target="qnn", samples=tuple(smaller))

    result = make_run(tmp_path, devices=(S25, TABS11, twin, broken), variants=(Variant.SHARED,), change=change)
    points = {point.device: point for point in sweep_points({INT8_KEY: "0"}, result, None)}
    sizes = {device: figure and figure.value for device, point in points.items() for figure in [point.figure("bytes")]}
    assert sizes == {S25.address: 30.0, TABS11.address: 15.0, "tabs11b": 15.0, "tabs11c": None}


@pytest.mark.parametrize("value", [99.0, 0.0, 1e17])
def test_a_likeness_that_is_the_same_everywhere_is_drawn(value: float, tmp_path: Path) -> None:
    sweep = _sweep(tmp_path, ("0", (value, value)), ("50", (value, value)))
    for chart in (sweep_chart(sweep), cost_chart(sweep)):
        assert "nan" not in (chart or "nan")


def test_quality_is_drawn_over_cost(tmp_path: Path) -> None:
    sweep = _sweep(tmp_path, ("0", (40.0, 44.0)), ("50", (39.0, 40.0)))
    drawn = ElementTree.fromstring(cost_chart(with_best(sweep)) or "")
    circles = [element for element in drawn.iter() if element.tag.endswith("circle")]
    assert len(circles) == 6
    words = {element.text for element in drawn.iter() if element.tag.endswith("text")}
    assert {"PSNR, dB", "End to end, ms", "50, restyle"} <= words
    assert cost_chart(replace(sweep, points=())) is None


def test_keys_that_end_alike_are_told_apart(tmp_path: Path) -> None:
    keys = ("tasks.0.sampler.steps", "tasks.1.sampler.steps", "precision.lora")
    result = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED))
    points = tuple(sweep_points(dict.fromkeys(keys, "4"), result, None))
    sweep = Sweep(sweep_id="s", recipe_name="r", keys=keys, published=None, points=points, touched=TASKS)
    assert sweep_tables(sweep)[0].columns[:3] == ("0.sampler.steps", "1.sampler.steps", "lora")


def test_one_item_has_no_standard_error(tmp_path: Path) -> None:
    result = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED), items=1)
    point = next(sweep_points({INT8_KEY: "0"}, result, None))
    assert next(figure for figure in point.figures if figure.key == "psnr").error is None


def test_a_sweep_that_could_not_be_scored_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    for name in [name for name in sys.modules if name.startswith(("quadbench.quality", "torchmetrics."))]:
        monkeypatch.delitem(sys.modules, name)
    words = ["sweep", "quickstart", "--over", "precision.lora=int16,int8", "--devices", "local"]
    assert main([*words, "--results", str(tmp_path)]) == 7
    said = " ".join(capsys.readouterr().err.split())
    assert "torchmetrics" in said
    says(said, "quadbench[quad]")
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize(
    ("device", "code", "said"),
    [
        ("s25", 5, "s25"),
        ("virtual:s25?scenario=hott", 2, "hott"),
    ],
)
def test_a_sweep_on_a_device_that_cannot_be_had_is_refused_before_anything_is_built(
    device: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "quickstart", "--over", "precision.lora=int16,int8", "--devices", device]
    assert main([*words, "--results", str(tmp_path)]) == code
    says(capsys.readouterr().err, said)
    assert not (tmp_path / "bundles").exists()


def test_a_sweep_on_a_device_that_somebody_else_has_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = open_engine(tmp_path / "quadbench.sqlite")
    Leases(engine).take(lease_name("virtual", "virtual-s25"), "ana@lab", "run of restyle")
    engine.dispose()
    words = ["sweep", "quickstart", "--over", "precision.lora=int16,int8", "--devices", "virtual:s25"]
    assert main([*words, "--results", str(tmp_path)]) == 5
    assert "ana@lab" in capsys.readouterr().err
    assert not (tmp_path / "bundles").exists()
