"""Names of recipes, tasks, adapters and inputs that are attacks stay text: in pages, pictures, tables and on terminals."""

import argparse
import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from support.report_page import Page
from support.synthetic_run import make_run

from quadbench.artifacts import RunRecord, RunResult, Sample, TaskAssets
from quadbench.artifacts.bundle import HeldOutScores, StepSqnr, TrajectorySqnr
from quadbench.artifacts.run_record import RunScores
from quadbench.cli.result import print_result, print_study
from quadbench.report.formatting import to_csv, to_markdown
from quadbench.report.html import render_html, render_study
from quadbench.report.run_line import write_comparison
from quadbench.report.sweep import Sweep, sweep_points, with_best
from quadbench.report.sweep_answer import sweep_csv, sweep_tables
from quadbench.report.sweep_charts import cost_chart, sweep_chart
from quadbench.report.tables import KPI, named_tables, text_tables
from quadbench.report.versus import Side, Versus, VersusDevice, VersusSide, side_rows, timed_launches, versus_csv
from quadbench.report.view import report_view
from quadbench.results.layout import Layout

ATTACKS = (
    '"><img src=x onerror=alert(1)>',
    "</script></style></title></svg><script>alert(1)</script>",
    "{{ 7 * 7 }} {% include 'x' %} &lt;b&gt;",
    "[red]x[/] [/foo] \x1b[2J\x1b]0;title\x07 \u202e\x00",
    "=cmd|' /C calc'!A0\r\n# | x |",
    "\\input{/etc/passwd} %$&_#",
    "x" * 20_000,
)
TOGETHER = "".join(("=cmd|' /C calc'!A0\r\n# | x |", *ATTACKS[:-1], "x" * 2_000))  # a formula is one at the start alone
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
NAMES = ("restyle", "remove-object", "draw")


@pytest.fixture(
    params=[
        pytest.param(TOGETHER, id="all in one"),
        *(pytest.param(attack, id=repr(attack[:20]), marks=pytest.mark.slow) for attack in ATTACKS),
    ]
)
def attack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def attacked(folder: Path, attack: str) -> RunResult:
    """A run whose recipe, tasks, adapters, inputs, prompts, folder and swept values are called so."""
    run = make_run(folder)
    names = {name: f"{name}{attack}" for name in NAMES}
    tasks = tuple(_task(task, names, attack) for task in run.bundle.tasks)
    bundle = replace(run.bundle, recipe_name=attack, tasks=tasks, tool_versions={attack: attack})
    return replace(
        run,
        stored=replace(run.stored, artifact=bundle),
        records=tuple(_record(record, names, attack) for record in run.records),
        recipe=attack,
        swept={attack: attack},
    )


def _task(task: TaskAssets, names: dict[str, str], attack: str) -> TaskAssets:
    items = tuple(replace(item, name=item.name + attack, prompt=attack) for item in task.items)
    adapter = task.adapter and names[task.adapter]
    return replace(task, name=names[task.name], adapter=adapter, scheme=attack, items=items)


def _record(record: RunRecord, names: dict[str, str], attack: str) -> RunRecord:
    images = {"/".join((names[key.split("/")[0]], key.split("/")[1] + attack)): path for key, path in record.images.items()}
    return replace(
        record,
        recipe_name=attack,
        samples=tuple(_sample(sample, names, attack) for sample in record.samples),
        images=images,
        versions={attack: attack},
        settings={attack: attack},
        state={attack: attack},
    )


def _sample(sample: Sample, names: dict[str, str], attack: str) -> Sample:
    labels = {key: names.get(text, text) for key, text in sample.labels.items()}
    item = sample.item and sample.item + attack
    return replace(sample, task=names.get(sample.task or "", sample.task), labels=labels, item=item)


def elements(html: str) -> set[tuple[str, frozenset[str]]]:
    page = Page(html)
    assert page.wrong == []
    assert not CONTROLS.search(html.replace("\t", ""))
    return {(tag, frozenset(attributes)) for tag, attributes in page.elements}


def test_no_name_is_markup_in_a_report(attack: str, tmp_path: Path) -> None:
    plain, run = make_run(tmp_path / "plain"), attacked(tmp_path / "evil", attack)
    told = replace(plain, swept={"a": "b"}, recipe="a recipe")
    page = render_html(run, Layout(tmp_path / "evil"))
    assert elements(page) <= elements(render_html(told, Layout(tmp_path / "plain")))
    assert ("{{ 7 * 7 }}" in Page(page).text) is ("{{ 7 * 7 }}" in attack)


def test_no_variant_that_was_judged_is_markup_in_a_report(attack: str, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    steps = tuple(StepSqnr(step=step, timestep=900.0 - step, sqnr_db=40.0) for step in range(3))

    def page(variant: str) -> str:
        trajectory = TrajectorySqnr(task="restyle", variant=variant, inputs=1, sqnr_db=40.0, steps=steps)
        judged = HeldOutScores(inputs=1, trajectories=(trajectory,), clippings=())
        bundle = replace(run.bundle, held_out=judged)
        scores = RunScores(compared=(), emulated={"qnn": judged})
        return render_html(replace(run, stored=replace(run.stored, artifact=bundle), scores=scores), Layout(tmp_path))

    assert elements(page(attack)) <= elements(page("shared"))


@pytest.mark.parametrize("full", [True, False])
def test_no_name_is_markup_or_a_code_on_the_terminal(
    attack: str, full: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = attacked(tmp_path, attack)
    options = argparse.Namespace(json=False, full=full, layout=Layout(tmp_path))
    view = report_view(run, options.layout)
    assert print_result(options, view, tmp_path / "report.html") == 0
    shown = capsys.readouterr().out
    assert not CONTROLS.search(shown)
    assert ("[red]" in re.sub(r"\s", "", shown)) is ("[red]" in attack)


def sweep_called(folder: Path, name: str) -> Sweep:
    """A sweep whose recipe, tasks, keys, values and failures are called so."""
    settings = ({name: name}, {name: f"{name}2"})
    points = tuple(point for setting in settings for point in sweep_points(setting, attacked(folder, name), None))
    sweep = Sweep(
        sweep_id="s",
        recipe_name=name,
        keys=(name,),
        published=None,
        points=points,
        touched=tuple(point.task for point in points),
        left_out={name: name},
        command=name,
    )
    return with_best(sweep)


def test_a_sweep_has_names_as_text_in_its_tables_pictures_and_report(
    attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_called(tmp_path, attack)
    for picture in (sweep_chart(sweep), cost_chart(sweep)):
        if picture:
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture).iter()}
            assert tags <= {"svg", "title", "g", "line", "text", "circle", "polyline", "rect", "path", "tspan", "style"}
            assert not CONTROLS.search(picture)
    rows = list(csv.reader(io.StringIO(sweep_csv(sweep))))
    assert len({len(row) for row in rows}) == 1
    assert not any(cell.startswith("=") for row in rows for cell in row)
    for table in sweep_tables(sweep):
        assert not CONTROLS.search(to_markdown(table))
    print_study(argparse.Namespace(json=False, full=True, layout=Layout(tmp_path)), sweep)
    assert not CONTROLS.search(capsys.readouterr().out)
    assert elements(render_study(sweep)) <= elements(render_study(sweep_called(tmp_path / "plain", "name")))


def test_tables_of_a_run_have_names_as_text(attack: str, tmp_path: Path) -> None:
    run = attacked(tmp_path, attack)
    rows = list(csv.reader(io.StringIO(to_csv(named_tables(run, KPI)))))
    assert len({len(row) for row in rows}) == 1
    for table in text_tables(run):
        assert not CONTROLS.search(to_markdown(table))
        assert not re.search(r"(?<!\\)<(img|script)", to_markdown(table))


def comparison_called(folder: Path, name: str) -> Versus:
    """A comparison whose sides, tasks, differences and failures are called so."""
    run = attacked(folder, name)
    (device,) = {record.device for record in run.records}
    records = {variant: tuple(r for r in run.records if r.variant.value == variant) for variant in ("shared", "per-graph")}
    a, b = (Side(records=of, tasks=run.bundle.tasks) for of in records.values())
    rows, differences = side_rows(device, a, b), {name: (name, name)}
    compared = VersusDevice(
        device=device, blocks=0, looks=None, rows=rows, differences=differences, caveats=(), launches=timed_launches(a, b)
    )
    side = VersusSide(source=name, changes={name: name}, variant=run.records[1].variant, run_id="r")
    return Versus(comparison_id="c", a=side, b=side, to_see=None, devices=(compared,), failures={name: name})


def test_a_comparison_has_names_as_text(attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versus = comparison_called(tmp_path, attack)
    print_study(argparse.Namespace(json=False, layout=Layout(tmp_path)), versus)
    assert not CONTROLS.search(capsys.readouterr().out)
    write_comparison(versus, Layout(tmp_path))
    assert json.loads((Layout(tmp_path).comparison("c") / "comparison.json").read_text())["a"]["source"] == attack
    assert elements(render_study(versus)) <= elements(render_study(comparison_called(tmp_path / "plain", "name")))
    rows = list(csv.reader(io.StringIO(versus_csv(versus))))
    assert len({len(row) for row in rows}) == 1
    assert not any(cell.startswith("=") for row in rows for cell in row)
