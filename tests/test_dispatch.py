"""Runs as jobs: what words mean to a farm, which jobs follow, and that a farm's run leaves what a run of one desk leaves."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from quadbench.dispatch.demands import Asked, asked_for, demands_of
from quadbench.dispatch.orders import BuildOrder, CompileAnswer, MeasureOrder, answer_of, as_json, order_of
from quadbench.dispatch.plan import planned
from quadbench.errors import ArtifactError, DeviceNotFoundError, UserError
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.farm.workers import WorkerDevice
from quadbench.pipeline import USUAL
from quadbench.recipe import Terms, load_recipe

DIGEST = "a" * 64


def device(number: int, profile: str = "s25", **labels: str) -> WorkerDevice:
    serial = f"{profile}-{number}"
    known = {"name": f"{profile}@{serial}", "serial": serial, "profile": profile, **labels}
    return WorkerDevice(name=serial, address=f"{profile}@{serial}", labels=known)


FARM = [device(1), device(2, rack="one"), device(3), device(1, "tabs11")]
ORDER = MeasureOrder(name="mine", bundles={"s25": DIGEST, "tabs11": "b" * 64}, terms=Terms(), conduct=USUAL)


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
        ([], UserError, "takes no device by itself"),
        (["pixel9"], DeviceNotFoundError, "the farm has 0 devices that fit 'pixel9'"),
        (["s25*4"], DeviceNotFoundError, "the farm has 3 devices that fit"),
        (["s25*2", "s25-1", "rack=one"], DeviceNotFoundError, "too few devices"),
        (["s25", "s25"], UserError, "was given 2 times"),
        (["s25-1", "s25@s25-1"], UserError, "was named twice"),
        (["s25?data_mb=5"], UserError, r"\?target=NAME alone"),
    ],
)
def test_words_that_a_farm_cannot_follow_are_refused_by_name(words: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        asked_for(words, FARM)


def test_a_run_builds_and_compiles_once_what_several_devices_need() -> None:
    demands = demands_of(asked_for(["s25*2", "tabs11"], FARM), ORDER)
    jobs = planned([BuildOrder(recipe="", bundle=DIGEST)], demands)
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
    (compiled, measured) = planned([], demands_of(asked_for(["s25-1"], FARM), ORDER))
    assert order_of(job_of(measured)) == replace(ORDER, target=None)
    assert as_json(order_of(job_of(compiled))) == compiled.payload


@pytest.mark.parametrize(
    "payload", [{}, {"kind": "measure"}, {"kind": "dig"}, {"kind": "build", "recipe": "x", "bundle": "../../x"}]
)
def test_a_payload_that_is_no_order_is_refused(payload: Mapping[str, object]) -> None:
    (_, measured) = planned([], demands_of(asked_for(["s25-1"], FARM), ORDER))
    with pytest.raises(ArtifactError, match="job 7 holds no order"):
        order_of(job_of(measured, payload))


@pytest.mark.parametrize("answer", [None, [], {"bundle": DIGEST, "key": "k", "compiled": "../x"}])
def test_an_answer_that_is_none_is_refused(answer: object) -> None:
    (compiled, _) = planned([], demands_of(asked_for(["s25-1"], FARM), ORDER))
    with pytest.raises(ArtifactError, match="job 7 has another answer than expected"):
        answer_of(job_of(compiled), answer, CompileAnswer)


def test_a_recipe_for_another_host_has_the_whole_paths_of_its_files(tmp_path: Path) -> None:
    from quadbench.dispatch.submission import whole_text
    from quadbench.recipe import Recipe
    from quadbench.spec import load_text

    recipe = load_recipe("quickstart")
    adapter = {"mine": {"source": "peft", "path": str(tmp_path / "lora")}}
    changed = load_recipe(
        "quickstart", {"adapters": {**{name: {"source": "builtin", "name": name} for name in recipe.adapters}, **adapter}}
    )
    assert load_text(whole_text(changed), "it", Recipe) == changed


def test_a_recipe_for_another_host_keeps_a_task_without_an_adapter(tiny_recipe: Path) -> None:
    from quadbench.dispatch.submission import whole_text
    from quadbench.recipe import Recipe
    from quadbench.spec import load_text

    recipe = load_recipe(tiny_recipe)
    assert {} in [task.adapter for task in recipe.tasks]
    assert load_text(whole_text(recipe), "it", Recipe) == recipe
