"""Runs as jobs: what words mean to a farm, which jobs follow, and that a farm's run leaves what a run of one desk leaves."""

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_pool import ScriptedPool, use_pool
from support.sentences import raising, says
from support.shared_files import flip, keys, write_launch, write_shared_bundle
from support.stored_records import DEVICE

from quadbench.artifacts import Retry, Variant
from quadbench.cli import main
from quadbench.cli.run_source import farm_command
from quadbench.devices.addresses import parse_address, parse_addresses, with_target
from quadbench.dispatch.demands import Asked, Demand, asked_for, planned
from quadbench.dispatch.gathering import gathered
from quadbench.dispatch.orders import BuildOrder, CompileAnswer, MeasureAnswer, MeasureOrder, answer_of, as_json, order_of
from quadbench.errors import ArtifactError, DeviceNotFoundError, UserError
from quadbench.farm.job import Job, JobKind, JobState, NewJob
from quadbench.farm.slots import Bay, needs_served
from quadbench.farm.store.artifacts import send
from quadbench.farm.store.launches import send_launch
from quadbench.farm.store.opening import open_store
from quadbench.pipeline import DEFAULT_RUN
from quadbench.pipeline.session import bundles_of
from quadbench.recipe import RunSettings
from quadbench.recipe.recipe import load_recipe
from quadbench.report.headline import missing_figures
from quadbench.results.layout import Layout
from quadbench.results.records import open_records
from quadbench.results.stored_runs import RunFile, load_run_file, merge_parts, new_run_file

DIGEST = "a" * 64


def device(number: int, profile: str = "s25", **labels: str) -> Bay:
    serial = f"{profile}-{number}"
    known = {"name": f"{profile}@{serial}", "serial": serial, "profile": profile, **labels}
    return Bay(name=serial, address=f"{profile}@{serial}", serves=needs_served(serial, known), labels=known)


FARM = [device(1), device(2, rack="one"), device(3), device(1, "tabs11")]
ORDER = MeasureOrder(name="mine", bundles={"s25": DIGEST, "tabs11": "b" * 64}, terms=RunSettings(), conduct=DEFAULT_RUN)


def demands(*words: str) -> list[Demand]:
    return [(asked, ORDER) for asked in asked_for(words, FARM)]


def needs(asked: list[Asked]) -> list[str]:
    return [one.needs for one in asked]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["s25-2"], ["device s25-2"]),
        (["s25@s25-2"], ["device s25-2"]),
        (["s25"], ["wish =s25"]),
        (["rack=one"], ["wish rack=one"]),
        (["s25*2"], ["device s25-1", "device s25-2"]),
        (["s25-1", "s25*2"], ["device s25-1", "device s25-2", "device s25-3"]),
        (["s25", "rack=one", "s25-3"], ["device s25-1", "device s25-2", "device s25-3"]),
        (["tabs11", "s25"], ["device tabs11-1", "device s25-1"]),
    ],
)
def test_words_ask_for_devices_and_no_device_is_asked_for_twice(words: list[str], expected: list[str]) -> None:
    assert sorted(needs(asked_for(words, FARM))) == sorted(expected)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([], UserError, ()),
        (["pixel9"], DeviceNotFoundError, (0, "pixel9")),
        (["s25*4"], DeviceNotFoundError, (3,)),
        (["s25*2", "s25-1", "rack=one"], DeviceNotFoundError, ()),
        (["s25", "s25"], UserError, (2,)),
        (["s25-1", "s25@s25-1"], UserError, ()),
        (["tabs11@s25-1"], UserError, ("tabs11@s25-1",)),
        (["s25?data_mb=5"], UserError, ("?target=NAME",)),
    ],
)
def test_words_that_a_farm_cannot_follow_are_refused_by_name(
    words: list[str], error: type[Exception], message: tuple[object, ...]
) -> None:
    with raising(error, *message):
        asked_for(words, FARM)


def test_a_device_without_a_profile_is_refused_by_its_serial_and_granted_to_no_wish() -> None:
    unknown = replace(device(1), labels={"serial": "s25-1", "name": "s25-1", "rack": "one"})
    with raising(UserError, "s25-1"):
        asked_for(["s25-1"], [unknown])
    with raising(DeviceNotFoundError, 0, "rack=one"):
        asked_for(["rack=one"], [unknown])


def test_devices_of_two_hosts_that_records_cannot_tell_apart_are_not_taken_together() -> None:
    virtual = [replace(device(1, address="x"), name=f"virtual-s25@{host}", address="virtual:s25") for host in ("one", "two")]
    with raising(UserError, "virtual-s25@one", "virtual-s25@two", "virtual:s25"):
        asked_for(["virtual-s25@one", "virtual-s25@two"], virtual)
    assert needs(asked_for(["profile=s25"], virtual)) == ["wish profile=s25"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s25", "s25?target=qnn"),
        ("virtual:s25?data_mb=64", "virtual:s25?data_mb=64&target=qnn"),
        ("virtual:s25?target=litert&scenario=/mine/hot.yaml", "virtual:s25?target=qnn&scenario=/mine/hot.yaml"),
    ],
)
def test_a_devices_address_keeps_its_options_where_another_target_is_asked_for(address: str, expected: str) -> None:
    assert str(with_target(parse_address(address), "qnn")) == expected
    assert str(with_target(parse_address(address), None)) == address


def test_a_run_builds_and_compiles_once_what_several_devices_need() -> None:
    jobs = planned([BuildOrder(recipe="", bundle=DIGEST)], demands("s25*2", "tabs11"))
    assert [job.kind for job in jobs] == [JobKind.BUILD, *[JobKind.COMPILE] * 2, *[JobKind.MEASURE] * 3]
    assert [job.after for job in jobs] == [(), (0,), (), (1,), (1,), (2,)]
    assert jobs[3].affinity == jobs[4].affinity != jobs[5].affinity


def job_of(new: NewJob, payload: Mapping[str, object] | None = None) -> Job:
    from datetime import UTC, datetime

    return Job(
        id=7, run_id="run", version="1", kind=new.kind, needs=new.needs, owner="ana@lab", submitted_at=datetime.now(UTC),
        payload=new.payload if payload is None else payload,
    )  # fmt: skip


def test_an_order_comes_back_as_it_was_given() -> None:
    (compiled, measured) = planned([], demands("s25-1"))
    assert order_of(job_of(measured)) == replace(ORDER, target=None)
    assert as_json(order_of(job_of(compiled))) == compiled.payload


@pytest.mark.parametrize(
    "payload", [{}, {"kind": "measure"}, {"kind": "dig"}, {"kind": "build", "recipe": "x", "bundle": "../../x"}]
)
def test_a_payload_that_is_no_order_is_refused(payload: Mapping[str, object]) -> None:
    (_, measured) = planned([], demands("s25-1"))
    with raising(ArtifactError, 7):
        order_of(job_of(measured, payload))


@pytest.mark.parametrize("answer", [None, [], {"bundle": DIGEST, "key": "k", "compiled": "../x"}])
def test_an_answer_that_is_none_is_refused(answer: object) -> None:
    (compiled, _) = planned([], demands("s25-1"))
    with raising(ArtifactError, 7):
        answer_of(job_of(compiled), answer, CompileAnswer)


def test_a_recipe_for_another_host_has_the_whole_paths_of_its_files(tmp_path: Path) -> None:
    from quadbench.dispatch.submission import whole_text
    from quadbench.recipe import Recipe
    from quadbench.spec.spec_model import load_text

    recipe = load_recipe("quickstart")
    adapter = {"mine": {"source": "peft", "path": str(tmp_path / "lora")}}
    changed = load_recipe(
        "quickstart", {"adapters": {**{name: {"source": "builtin", "name": name} for name in recipe.adapters}, **adapter}}
    )
    assert load_text(whole_text(changed), "it", Recipe) == changed
    trace = load_recipe("quickstart", {"measure.sequence": [task.name for task in recipe.tasks[:2]] * 5000})
    assert load_text(whole_text(trace), "it", Recipe) == trace
    bare = load_recipe("quickstart", {"tasks.0.adapter": None})
    assert load_text(whole_text(bare), "it", Recipe) == bare


def test_a_run_of_several_devices_keeps_what_befell_each_and_goes_on_where_one_had_no_time() -> None:
    whole = RunFile(run_id="r", bundle="b", deployments=(), is_ended=True)
    lost, again = Retry(address="s25-1", reason="gone", away_s=2.0), Retry(address="s25-2", reason="gone", away_s=3.0)
    parts = [replace(whole, retries=(lost,)), replace(whole, retries=(lost, again), left_out={"s25-2": "no time was left"})]
    assert merge_parts(parts) == replace(whole, retries=(lost, again), left_out={"s25-2": "no time was left"}, is_ended=False)
    assert merge_parts([whole, parts[0]]).is_ended


def test_of_a_job_that_failed_the_run_says_why_and_can_go_on_where_it_has_launches(tmp_path: Path) -> None:
    here, there, store = Layout(tmp_path / "here"), Layout(tmp_path / "there"), open_store(tmp_path)
    bundle, terms = write_shared_bundle(here), RunSettings()
    send(bundle, store)
    whole, lost = (replace(DEVICE, serial=serial, address=f"s25@{serial}") for serial in ("s25-1", "virtual-s25"))
    with open_records(there.database) as records:
        for facts in (whole, lost):
            stored = write_launch(here, "r", facts=facts)
            send_launch(stored, here, store)
            records.store(replace(stored, record_id=facts.serial, bundle_digest=bundle.artifact.digest, images={}))
    order = MeasureOrder(name="mine", bundles={"s25": bundle.artifact.digest}, terms=terms, conduct=DEFAULT_RUN)
    job = job_of(NewJob(kind=JobKind.MEASURE, needs="device s25-3", payload=as_json(order)))
    jobs = [
        replace(job, id=0, state=JobState.DONE, seat="s25-1"),
        replace(job, id=1, state=JobState.FAILED, seat="virtual-s25@h1", reason="no answer"),
        replace(job, id=2, state=JobState.CANCELLED, reason="cancelled by ana@lab"),
    ]
    begun = new_run_file("r", {"s25": bundle}, terms, deployments=(), planned={Variant.SHARED: 2}, devices=(whole,))
    part = as_json(MeasureAnswer(part=replace(begun, is_ended=True)))
    outcome = gathered("r", jobs, {0: part}, store, there)
    reasons = {
        lost.address: "job 1 failed: no answer. Hint: quadbench farm logs 1",
        "device s25-3": "job 2 was cancelled by ana@lab. Hint: quadbench farm logs 2",
    }
    assert outcome.failures.keys() == {"virtual-s25@h1", "device s25-3"}
    assert outcome.result.left_out == reasons
    told = missing_figures(outcome.result, ())
    says(told, 2, 4)
    assert f"{lost.address}: {reasons[lost.address]}." in told
    run = load_run_file(there, "r")
    assert run.addresses == (lost.address, whole.address)
    assert [*bundles_of(run, parse_addresses([lost.address]), there)] == [run.bundle]


def test_a_fetched_run_whose_pictures_are_damaged_in_the_store_is_no_success_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here, there, store = Layout(tmp_path / "here"), Layout(tmp_path / "there"), open_store(tmp_path)
    bundle, terms = write_shared_bundle(here), RunSettings()
    send(bundle, store)
    before = keys(store)
    with open_records(there.database) as records:
        for launch in range(3):
            stored = write_launch(here, "r", launch)
            send_launch(stored, here, store)
            records.store(replace(stored, record_id=f"r{launch}", bundle_digest=bundle.artifact.digest, images={}))
    for key in set(keys(store)).difference(before):
        if store.place.look(key)["size"]:  # type: ignore[index]
            flip(store, key)
    order = MeasureOrder(name="mine", bundles={"s25": bundle.artifact.digest}, terms=terms, conduct=DEFAULT_RUN)
    job = job_of(NewJob(kind=JobKind.MEASURE, needs="device s25-3", payload=as_json(order)))
    begun = new_run_file("r", {"s25": bundle}, terms, deployments=(), planned={Variant.SHARED: 3}, devices=(DEVICE,))
    done = [replace(job, id=0, state=JobState.DONE, seat="s25-1")]
    outcome = gathered("r", done, {0: as_json(MeasureAnswer(part=replace(begun, is_ended=True)))}, store, there)
    assert outcome.exit_code == ArtifactError.exit_code
    (failure,) = outcome.failures.values()
    assert "3 of 3 launches" in str(failure)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("farm", "told"),
    [
        ("sqlite:////a folder/farm.sqlite", "QUADBENCH_DATABASE=/a folder/farm.sqlite"),
        ("postgresql://ana:secret@db/lab", "QUADBENCH_DATABASE=postgresql://ana:***@db/lab"),
    ],
)
def test_the_command_that_fetches_a_run_names_the_farm_that_has_it_without_its_password(farm: str, told: str) -> None:
    options = argparse.Namespace(farm=farm, layout=Layout(Path("here")))
    words = shlex.split(farm_command(options, "fetch", "RUN"))
    assert words == [told, "quadbench", "farm", "fetch", "RUN", "--results", "here"]


@pytest.mark.parametrize(("words", "told"), [(["--wait"], "--wait"), (["--dry-run"], "--dry-run")])
def test_a_farm_refuses_what_only_a_run_here_takes(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--farm", "sqlite:///farm.sqlite", "--devices", "s25", *words]) == UserError.exit_code
    says(capsys.readouterr().err, told)


def test_an_empty_name_of_a_farm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "quickstart", "--farm", ""])
    says(capsys.readouterr().err, "--farm")


def test_a_database_that_is_not_there_is_no_farm_and_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store := tmp_path / "store").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUADBENCH_STORE", str(store))
        patch.setenv("QUADBENCH_DATABASE", "")
        use_pool(ScriptedPool(), patch)
        words = ["run", "quickstart", "--farm", f"sqlite:///{tmp_path}/none.sqlite", "--devices", "s25"]
        assert main([*words, "--results", str(tmp_path / "results")]) == 2
    says(capsys.readouterr().err)
    assert not (tmp_path / "none.sqlite").exists()
