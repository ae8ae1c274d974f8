"""A run that was cut short goes on: what is whole is not measured again, nothing is stored twice, the report is of one run."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.interference import Interfering, press_ctrl_c
from support.sentences import raising, says
from support.stored_records import query
from support.watcher import Silent

pytest.importorskip("torch")

from quadbench import pipeline
from quadbench.artifacts import RunResult, Status, StoredBundle, Variant
from quadbench.cli import main
from quadbench.devices.addresses import parse_addresses
from quadbench.errors import ArtifactError, DeviceError, RunInterrupted, UserError
from quadbench.observer import Observer
from quadbench.pipeline.steps import report
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import change_run, load_run, load_run_file

pytestmark = pytest.mark.slow  # each of these has real processes and waits for them

BOTH = ["local", "virtual:s25"]


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe, {"measure.launches": 2})


@pytest.fixture(scope="module")
def cut_short(recipe: Recipe, tiny_bundle: StoredBundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, RunResult]:
    """A run of two devices that was interrupted in its first block: its first device has the float launch and one more."""
    layout = Layout(tmp_path_factory.mktemp("cut-short"))
    shutil.copytree(tiny_bundle.folder.parent, layout.bundles)
    with pytest.raises(RunInterrupted) as caught:
        pipeline.run(recipe, parse_addresses(BOTH), layout=layout, observer=Interfering(3, press_ctrl_c))
    return layout, load_run(layout, caught.value.run_id)


@pytest.fixture
def results(cut_short: tuple[Layout, RunResult], tmp_path: Path) -> Layout:
    """A copy of its results folder, for one test to go on in."""
    shutil.copytree(cut_short[0].root, tmp_path / "results", ignore=shutil.ignore_patterns("devices"))
    return Layout(tmp_path / "results")


@pytest.fixture
def run_id(cut_short: tuple[Layout, RunResult]) -> str:
    return cut_short[1].run_id


def names(result: RunResult, address: str, status: Status) -> list[str]:
    ours = [record for record in result.records if record.device.address == address and record.status is status]
    return [f"{record.variant} {record.launch}" for record in ours]


REPEATED = ["shared 1000", "per-graph 1000", "per-graph 1001", "shared 1001"]


def test_what_is_missing_is_measured_and_what_is_there_is_not(results: Layout, run_id: str) -> None:
    with open_records(results.database) as records:
        before = records.run_records(run_id)
    watcher = Interfering()
    outcome = pipeline.resume(run_id, layout=results, observer=watcher)
    assert outcome.is_ok
    assert outcome.result.run_id == run_id
    assert not outcome.result.is_cut_short
    assert watcher.launches == [*REPEATED, "float 0", "shared 0", "per-graph 0", "per-graph 1", "shared 1"]
    assert names(outcome.result, "local", Status.OK) == ["float 0", *REPEATED]
    assert names(outcome.result, "local", Status.DISCARDED) == ["shared 0"]
    assert names(outcome.result, "virtual:s25", Status.DISCARDED) == []
    with open_records(results.database) as records:
        assert records.run_records(run_id)[: len(before)] == before
        keys = [(record.device.address, record.variant, record.launch) for record in records.run_records(run_id)]
    assert len(set(keys)) == len(keys) == 11


def test_devices_that_are_named_go_on_alone_and_the_run_ends_with_the_last(results: Layout, run_id: str) -> None:
    first = pipeline.resume(run_id, parse_addresses(["virtual:s25"]), layout=results, observer=Silent())
    assert first.result.is_cut_short
    assert names(first.result, "local", Status.OK) == ["float 0", "shared 0"]
    second = pipeline.resume(run_id, parse_addresses(["local"]), layout=results, observer=Silent())
    assert not second.result.is_cut_short
    assert len(second.result.deployments) == 2


def taken_up(run_id: str, bundle: StoredBundle, recipe: Recipe, results: Layout, observer: Observer) -> pipeline.RunOutcome:
    """Measure what a run lacks on one device, as a farm's worker does."""
    work = replace(pipeline.work_of_bundle(bundle, recipe.terms), run_id=run_id)
    with pipeline.run_session(
        work, parse_addresses(["local"]), pipeline.DEFAULT_RUN, layout=results, observer=observer
    ) as session:
        failures = pipeline.run_stages(dict.fromkeys(session.leased.profiles, bundle), session)
    return report(failures, session)


def test_a_worker_takes_up_what_another_one_has_left(recipe: Recipe, results: Layout, run_id: str) -> None:
    bundle = load_run(results, run_id).stored
    watcher = Interfering()
    outcome = taken_up(run_id, bundle, recipe, results, watcher)
    assert watcher.launches == REPEATED
    assert names(outcome.result, "local", Status.OK) == ["float 0", *REPEATED]
    assert outcome.result.is_cut_short


def test_a_worker_begins_a_run_of_which_nothing_is_there(recipe: Recipe, results: Layout, run_id: str) -> None:
    bundle = load_run(results, run_id).stored
    outcome = taken_up("job-7", bundle, recipe, results, Silent())
    assert (outcome.result.run_id, outcome.is_ok, outcome.result.is_cut_short) == ("job-7", True, False)
    watcher = Interfering()
    assert taken_up("job-7", bundle, recipe, results, watcher).is_ok
    assert watcher.launches == []


def test_a_bundle_is_resumed_on_its_own_terms(recipe: Recipe, results: Layout, run_id: str) -> None:
    bundle = load_run(results, run_id).stored
    terms = replace(recipe.terms, baselines=(), text=None)
    with pytest.raises(RunInterrupted) as caught:
        pipeline.run_bundle(bundle, terms, parse_addresses(["local"]), layout=results, observer=Interfering(2, press_ctrl_c))
    watcher = Interfering()
    assert pipeline.resume(caught.value.run_id, layout=results, observer=watcher).is_ok
    assert watcher.launches == ["shared 0", "shared 1"]
    assert load_run(results, caught.value.run_id).planned == {Variant.FLOAT: 1, Variant.SHARED: 2}


def test_a_bundle_that_lies_elsewhere_is_kept_with_its_run(tiny_bundle: StoredBundle, recipe: Recipe, tmp_path: Path) -> None:
    layout, terms = Layout(tmp_path), replace(recipe.terms, baselines=())
    outcome = pipeline.run_bundle(tiny_bundle, terms, parse_addresses(["local"]), layout=layout, observer=Silent())
    assert outcome.is_ok
    assert outcome.report.is_file()
    assert load_run(layout, outcome.result.run_id).stored.folder == layout.bundle(tiny_bundle.artifact.digest)


@pytest.mark.slow
def test_one_ctrl_c_finishes_the_launch_and_the_printed_command_goes_on(tiny_recipe: Path, results: Layout) -> None:
    folder = tiny_recipe.parent
    words = [str(folder / "recipe.yaml"), "--devices", "virtual:tabs11,local", "--results", str(results.root)]
    process = subprocess.Popen(
        [sys.executable, "-m", "quadbench", "run", *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if "float 0 (1 of 3): OK" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    says(rest, "is finished and stored; press Ctrl-C again to stop it at once")
    with open_records(results.database) as records:
        interrupted = records.run_records(records.run_ids()[0])
    assert {record.status for record in interrupted} == {Status.OK}
    assert {record.device.address for record in interrupted} == {"virtual:tabs11"}
    (command,) = re.findall("to resume: quadbench (.*)", rest)
    assert main(command.split()) == 0
    again = load_run(results, interrupted[0].run_id)
    assert not again.is_cut_short
    assert sum(record.status is Status.OK for record in again.records) == 6


def test_a_run_whose_launches_are_removed_while_it_goes_on_does_not_end_well_and_measures_them_again(
    recipe: Recipe, results: Layout, run_id: str
) -> None:
    bundle = load_run(results, run_id).stored

    def remove() -> None:
        with open_records(results.database) as records:
            assert records.remove(records.run_ids()[0]) == 2

    terms = replace(recipe.terms, baselines=())
    outcome = pipeline.run_bundle(bundle, terms, parse_addresses(["local"]), layout=results, observer=Interfering(3, remove))
    assert outcome.exit_code == ArtifactError.exit_code
    says(outcome.result.left_out["local"], "2 of its launches were deleted")
    assert outcome.result.is_cut_short
    again = pipeline.resume(outcome.result.run_id, layout=results, observer=Silent())
    assert (again.is_ok, again.result.is_cut_short, again.result.left_out) == (True, False, {})


def test_a_run_that_has_ended_and_lost_launches_since_is_cut_short_and_goes_on(results: Layout, run_id: str) -> None:
    assert pipeline.resume(run_id, layout=results, observer=Silent()).is_ok
    query(results.database, "DELETE FROM records WHERE launch = 1 AND device_address = 'virtual:s25'")
    assert load_run(results, run_id).is_cut_short
    again = pipeline.resume(run_id, layout=results, observer=Silent())
    assert (again.is_ok, again.result.is_cut_short) == (True, False)


# What cannot go on


@pytest.fixture
def refusal(results: Layout, run_id: str) -> Iterator[Path]:
    """The run's file, with which something is wrong when the test ends."""
    yield results.run_file(run_id)
    with open_records(results.database) as records:
        assert len(records.run_records(run_id)) == 2


def changed(path: Path, **values: object) -> None:
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def refused(
    results: Layout, run_id: str, kind: type[Exception], pattern: tuple[str, ...], addresses: tuple[str, ...] = ()
) -> None:
    with raising(kind, *pattern):
        pipeline.resume(run_id, parse_addresses(addresses), layout=results, observer=Silent())


def test_a_run_that_has_ended_does_not_go_on(refusal: Path, results: Layout, run_id: str) -> None:
    changed(refusal, is_ended=True, left_out=dict.fromkeys(BOTH, "its cable"))
    refused(results, run_id, UserError, (run_id, "quadbench report"))


def test_a_side_of_a_comparison_does_not_go_on(refusal: Path, results: Layout, run_id: str) -> None:
    changed(refusal, planned={})
    refused(results, run_id, UserError, (run_id,))


@pytest.mark.parametrize("name", ["20990101-000000-abcd", "../../etc"])
def test_a_run_of_another_results_folder_is_named(name: str, results: Layout) -> None:
    refused(results, name, UserError, (name, "--results"))


def test_a_device_that_the_run_does_not_have_is_refused(refusal: Path, results: Layout, run_id: str) -> None:
    refused(results, run_id, UserError, ("virtual:tabs11", "virtual:s25"), ("virtual:tabs11",))


def test_a_bundle_that_is_gone_is_named(refusal: Path, results: Layout, run_id: str) -> None:
    shutil.rmtree(results.bundles)
    refused(results, run_id, ArtifactError, ())


def test_a_bundle_that_was_built_anew_is_another_one(refusal: Path, results: Layout, run_id: str) -> None:
    changed(refusal, contents={load_run_file(results, run_id).bundle: "0" * 64})
    refused(results, run_id, ArtifactError, ())


def test_a_bundle_with_a_changed_file_is_refused(refusal: Path, results: Layout, run_id: str) -> None:
    bundle = load_run(results, run_id).stored
    file = bundle.path(bundle.artifact.graphs[0].file)
    file.chmod(0o644)
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1, *file.read_bytes()[1:]]))
    refused(results, run_id, ArtifactError, ())


def test_another_phone_at_the_same_address_is_refused(refusal: Path, results: Layout, run_id: str) -> None:
    def with_other(run: object) -> object:
        begun = load_run_file(results, run_id)
        devices = (begun.devices[0], replace(begun.devices[1], serial="R5CX000"))
        return replace(begun, devices=devices)

    change_run(results, run_id, with_other)  # type: ignore[arg-type]
    refused(
        results,
        run_id,
        DeviceError,
        ("virtual:s25", "virtual-s25", "R5CX000"),
    )


def test_the_command_line_takes_a_run_or_something_to_run(
    refusal: Path, results: Layout, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--results", str(results.root)]
    for words, said in {
        (): "no recipe or bundle was named",
        ("quickstart", "--resume", run_id): "does not take quickstart",
        ("--resume", run_id, "--dry-run"): "does not take --dry-run",
        ("--resume", "nothing"): "unknown run 'nothing'; known: ",
    }.items():
        assert main(["run", *words, *folder]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
