"""Sweeps and comparisons are listed, shown and reported again by their ids; what is damaged costs only itself."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.hand_made import EVEN, comparison_of, point, sweep_of
from support.printed_schemas import schema
from support.report_page import Page
from support.sentences import reads, says
from support.synthetic_run import S25, make_run
from support.watcher import Silent

from quadbench.artifacts import Caveat
from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import ArtifactError, DeviceError, StorageError
from quadbench.pipeline import DEFAULT_RUN, RunOutcome
from quadbench.report.html import render_study
from quadbench.report.run_line import study_json, write_comparison
from quadbench.report.sweep import Sweep
from quadbench.report.versus import Versus
from quadbench.results.layout import Layout
from quadbench.study.run_sweep import SweepAxis, _command, _kept_if_broken_off, _measure, _RunningSweep, _write, vary_recipe
from quadbench.study.stored_studies import find_study, read_study, study_lines

GOOD = (40.0, 42.0, 41.0, 43.0)
SWEEP = sweep_of(
    point("int16", psnr=GOOD, end_to_end=EVEN, bytes=(10.0,)),
    point("int8", psnr=(39.0, 41.1, 40.0, 42.0), end_to_end=(0.8 * EVEN[0],), bytes=(8.8,)),
)
COMPARISON = comparison_of({"virtual:s25": 1.05, "virtual:tabs11": 1.0})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A results folder with a sweep and a comparison."""
    layout = Layout(tmp_path)
    folder = layout.sweep(SWEEP.sweep_id)
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(study_json(SWEEP))
    write_comparison(COMPARISON, layout)
    return layout


@pytest.mark.parametrize("study", [SWEEP, COMPARISON], ids=["sweep", "comparison"])
def test_a_study_is_read_as_it_was_written(layout: Layout, study: Sweep | Versus) -> None:
    study_id = study.sweep_id if isinstance(study, Sweep) else study.comparison_id
    path = find_study(layout, study_id)
    assert path is not None
    assert read_study(path) == study
    assert find_study(layout, "../sweeps") is None


def test_studies_are_listed_with_what_came_of_them(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--results", str(layout.root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    says(shown, COMPARISON.comparison_id, "quickstart", "runtime.threads=1", SWEEP.sweep_id, "precision.lora")
    assert main(["runs", "--json", "--results", str(layout.root)]) == 0
    studies = json.loads(capsys.readouterr().out)["studies"]
    assert [study["kind"] for study in studies] == ["comparison", "sweep"]
    assert studies[0]["sentences"][0].endswith(": WORSE.")


@pytest.mark.parametrize("study_id", [SWEEP.sweep_id, COMPARISON.comparison_id])
def test_a_study_is_shown_and_reported_again_by_its_id(layout: Layout, study_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [study_id, "--results", str(layout.root)]
    assert main(["show", *words]) == 0
    says(capsys.readouterr().out, "quadbench report", study_id, "--results")
    assert main(["report", *words]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    report = Path(last.removeprefix("report: "))
    assert report.is_file()
    assert main(["show", *words]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_sweep_says_which_command_settles_its_times(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", SWEEP.sweep_id, "--results", str(layout.root)]) == 0
    shown = capsys.readouterr().out
    says(
        shown,
        "quadbench compare",
        "run-int16",
        "run-int8",
        "--devices",
        "--results",
        layout.root,
        "precision.lora=int8",
        "precision.lora=int16",
        "1.0",
    )


@pytest.mark.parametrize("study_id", [SWEEP.sweep_id, COMPARISON.comparison_id])
@pytest.mark.parametrize(("format", "sign"), [("csv", ","), ("markdown", "|")])
def test_a_study_is_printed_for_elsewhere_and_nothing_is_written(
    layout: Layout, study_id: str, format: str, sign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", study_id, "--format", format, "--results", str(layout.root)]) == 0
    assert sign in capsys.readouterr().out
    assert not list(layout.root.glob("*/*/*.html"))


def test_conditions_are_of_runs(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", SWEEP.sweep_id, "--fail-if", "shared.psnr_db < 3", "--results", str(layout.root)]) == 2
    says(capsys.readouterr().err)


@pytest.mark.parametrize(("study", "name"), [(SWEEP, "sweep"), (COMPARISON, "comparison")], ids=["sweep", "comparison"])
def test_the_file_of_a_study_is_what_its_schema_says(study: Sweep | Versus, name: str) -> None:
    document = json.loads(study_json(study))
    jsonschema.validate(document, schema(name), cls=jsonschema.Draft202012Validator)
    assert document["sentences"]


def of_another_version(document: dict[str, Any]) -> None:
    document["schema_version"] = 2


def without_points(document: dict[str, Any]) -> None:
    del document["points"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_another_version, ("schema_version", 2, 3)),
        (without_points, ()),
    ],
)
def test_a_damaged_study_is_named_and_costs_no_other(
    layout: Layout, spoil: Callable[[dict[str, Any]], None], said: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path = layout.sweep(SWEEP.sweep_id) / "sweep.json"
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError) as refusal:
        read_study(path)
    says(str(refusal.value), *said)
    comparison, damaged = study_lines(layout, 20)
    assert comparison.reason is None
    assert damaged.reason
    assert main(["show", SWEEP.sweep_id, "--results", str(layout.root)]) == 3
    says(capsys.readouterr().err, *said)


def test_the_report_of_a_comparison_says_the_result_first_and_holds_all_that_others_ask_for() -> None:
    page = Page(render_study(COMPARISON))
    assert page.wrong == []
    assert not {"script", "link"} & {tag for tag, _ in page.elements}
    says(page.text, "5.0")
    assert page.text.index("5.0 % more") < page.text.index("By how much")
    assert "quadbench compare quickstart quickstart --b runtime.threads=1 --devices virtual:s25,virtual:tabs11" in page.text
    assert "runtime.threads" in page.text
    assert {"battery, °C", "an image, ms"} <= set(page.texts)


def test_after_a_comparison_on_no_phone_the_next_command_names_a_place_for_one_and_is_not_the_same_again() -> None:
    devices = [replace(device, caveats=(Caveat.VIRTUAL_DEVICE,)) for device in COMPARISON.devices]
    text = " ".join(Page(render_study(replace(COMPARISON, devices=tuple(devices)))).text.split())
    says(text, "virtual:s25,virtual:tabs11")


def test_the_report_of_a_comparison_says_its_confidence_margin_scale_and_what_pictures_are_held_against() -> None:
    text = Page(render_study(COMPARISON)).text
    says(text, "97.8", "2.0")


def test_a_comparison_without_launches_in_turn_draws_no_intervals() -> None:
    devices = [replace(device, looks=None, launches=(), rows=()) for device in COMPARISON.devices]
    page = Page(render_study(replace(COMPARISON, devices=tuple(devices))))
    assert page.count("svg") == 0
    says(page.text, "quadbench compare")


def test_the_report_of_a_sweep_says_the_answer_first_and_how_to_have_it_again() -> None:
    page = Page(render_study(SWEEP))
    assert page.wrong == []
    assert page.text.index("precision.lora=int8 against precision.lora=int16: PSNR") < page.text.index("Quality and cost")
    assert page.count("svg") == 2
    assert SWEEP.command in page.text


@pytest.mark.parametrize("end", [KeyboardInterrupt(), ArtifactError("the disk is gone")], ids=["Ctrl-C", "a failure"])
def test_what_a_sweep_has_measured_is_kept_where_it_is_broken_off(tmp_path: Path, end: BaseException) -> None:
    layout = Layout(tmp_path)
    variations = vary_recipe("quickstart", [SweepAxis(key="precision.lora", values=("int16", "int8"))])
    under_way = _RunningSweep(sweep_id=SWEEP.sweep_id, variations=variations, command=SWEEP.command)
    under_way.points.extend(SWEEP.points[:1])
    with pytest.raises(type(end)), _kept_if_broken_off(under_way, layout):
        raise end
    (path,) = layout.studies()
    kept = read_study(path)
    assert isinstance(kept, Sweep)
    reads(kept.left_out, "precision.lora=int8")
    assert (path.parent / "sweep.html").is_file()


def test_a_device_that_a_setting_left_out_is_named_and_fails_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = DeviceError("it is gone")
    result = replace(make_run(tmp_path), left_out={"s24": str(lost), "s23": "the time was over"})
    outcome = RunOutcome(result=result, report=tmp_path, failures={"s24": lost})
    monkeypatch.setattr("quadbench.study.run_sweep.pipeline.run", lambda *_, **__: outcome)
    monkeypatch.setattr("quadbench.study.run_sweep._teacher", lambda *_: None)
    variations = vary_recipe("quickstart", [SweepAxis(key="precision.lora", values=("int16", "int8"))])[:1]
    under_way = _RunningSweep(sweep_id=SWEEP.sweep_id, variations=variations, command=SWEEP.command)
    _measure(under_way, parse_addresses([S25.address, "s24", "s23"]), DEFAULT_RUN, Layout(tmp_path), Silent())
    on = "precision.lora=int16 on"
    assert under_way.sweep.left_out == {f"{on} s24": "it is gone", f"{on} s23": "the time was over"}
    assert under_way.failures == {f"{on} s24": lost}
    assert {point.device for point in under_way.sweep.points} == {S25.address}


def test_a_sweep_notes_all_that_was_typed(tmp_path: Path) -> None:
    conduct = replace(DEFAULT_RUN, budget_s=7200.0, keep_going=True)
    over, devices = SweepAxis(key="precision.lora", values=("int16", "int8")), parse_addresses(["s24", "s25"])
    command = _command("quickstart", [over], devices, conduct, Layout(tmp_path))
    assert command == (
        "quadbench sweep quickstart --over precision.lora=int16,int8 --devices s24,s25 --budget 7200s --keep-going "
        f"--results {tmp_path}"
    )


def test_a_sweep_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError):
        _write(SWEEP, Layout(tmp_path))
    assert list((tmp_path / "sweeps").iterdir()) == []


def test_a_sweep_that_is_being_written_is_no_study_yet(tmp_path: Path) -> None:
    path = Layout(tmp_path).sweep(SWEEP.sweep_id).with_name(f".{SWEEP.sweep_id}.1") / "sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text(study_json(SWEEP))
    assert Layout(tmp_path).studies() == []


def test_a_sweep_that_was_broken_off_before_its_first_setting_leaves_nothing(tmp_path: Path) -> None:
    variations = vary_recipe("quickstart", [SweepAxis(key="precision.lora", values=("int16", "int8"))])
    under_way = _RunningSweep(sweep_id=SWEEP.sweep_id, variations=variations, command=SWEEP.command)
    with pytest.raises(KeyboardInterrupt), _kept_if_broken_off(under_way, Layout(tmp_path)):
        raise KeyboardInterrupt
    assert Layout(tmp_path).studies() == []
