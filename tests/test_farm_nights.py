"""What a farm is told of a night's comparisons comes back as it was given, and a word of a night means one device there."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.scripted_pool import phone
from support.sentences import raising

from quadbench.artifacts import Variant
from quadbench.dispatch.demands import only_device, planned
from quadbench.dispatch.orders import CompareOrder, SideOrder, as_json, order_of
from quadbench.errors import ArtifactError, DeviceNotFoundError, UserError
from quadbench.farm.job import Job, JobKind, NewJob
from quadbench.pipeline import DEFAULT_RUN
from quadbench.recipe import RunSettings
from quadbench.statistics.multiple_testing import LOOKS
from quadbench.study.run_comparison import Goal

YARDSTICK, CASE = "a" * 64, "b" * 64
SIDE = SideOrder(name="reference", bundle=YARDSTICK, variant=Variant.SHARED, kit=None, terms=RunSettings())
ORDER = CompareOrder(
    case="restyle",
    word="s25-1",
    a=SIDE,
    b=replace(SIDE, name="restyle", bundle=CASE, kit="c" * 64),
    looks=LOOKS,
    goals=(Goal(task="restyle", key="end_to_end", limit=0.03),),
    tasks=("restyle",),
    conduct=DEFAULT_RUN,
)
FARM = [phone(f"s25-{number}") for number in (1, 2)]


def jobs() -> list[NewJob]:
    """Two cases on the same phone beside the same yardstick."""
    asked = only_device("s25-1", FARM)
    return planned([], [(asked, replace(ORDER, case=case)) for case in ("restyle", "sticker")])


def job_of(new: NewJob) -> Job:
    at = datetime.now(UTC)
    return Job(id=7, run_id="n", version="1", kind=new.kind, needs=new.needs, owner="o", submitted_at=at, payload=new.payload)


def test_both_sides_are_compiled_once_for_all_comparisons_on_a_device() -> None:
    assert [new.kind for new in jobs()] == [JobKind.COMPILE] * 2 + [JobKind.COMPARE] * 2
    assert [new.after for new in jobs()[2:]] == [(0, 1)] * 2


def test_an_order_to_compare_comes_back_as_it_was_given() -> None:
    assert order_of(job_of(jobs()[2])) == ORDER
    assert as_json(order_of(job_of(jobs()[2]))) == jobs()[2].payload


@pytest.mark.parametrize("change", [{"a": {}}, {"looks": {"at": ["x"]}}, {"goals": [{"task": 1}]}])
def test_an_order_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    new = replace(jobs()[2], payload={**jobs()[2].payload, **change})
    with raising(ArtifactError, 7):
        order_of(job_of(new))


def test_a_word_has_to_mean_one_device_of_the_farm() -> None:
    assert only_device("s25-2", FARM).needs == "device s25-2"
    assert only_device("s25", FARM[:1]).needs == "device s25-1"
    with raising(UserError, "s25-1", "s25-2"):
        only_device("s25", FARM)
    with raising(DeviceNotFoundError, "tabs11"):
        only_device("tabs11", FARM)
