"""Turns: a discarded block is repeated as a whole, as often as it may be; two sides take turns until they are told apart."""

from collections.abc import Sequence
from typing import Any, cast

from quadbench.artifacts import LaunchPlan, Status, Variant
from quadbench.measure.launch_record import LaunchSettings
from quadbench.measure.launch_schedule import InterleavedSchedule, ScheduledLaunch, SideLaunch, schedule_launches
from quadbench.statistics import Looks

S, P, F = Variant.SHARED, Variant.PER_GRAPH, Variant.FLOAT
SEED = "a run"


class Ended:
    """What a turn is told of its launch: how it ended."""

    def __init__(self, status: Status, *, is_lost: bool = False) -> None:
        self.record, self.lost = self, is_lost
        self.status = status
        self.reason = None if status is Status.OK else "it did not work"


def abba(blocks: int) -> list[LaunchPlan]:
    order = [
        launch for block in range(blocks) for launch in ((S, 2 * block), (P, 2 * block), (P, 2 * block + 1), (S, 2 * block + 1))
    ]
    return [LaunchPlan(variant=variant, launch=launch, sequence=()) for variant, launch in [(F, 0), *order]]


def ran(
    launches: Sequence[LaunchPlan],
    discarded: set[tuple[Variant, int]],
    repeats: int,
    lost: set[tuple[Variant, int]] = frozenset(),  # type: ignore[assignment]
) -> list[ScheduledLaunch]:
    """Every turn, where a launch in `discarded` ends hot: it is discarded if it may be; `lost` loses the device."""
    turns = schedule_launches(cast(Any, None), launches, cast(LaunchSettings, None), repeats=repeats)
    taken: list[ScheduledLaunch] = []
    turn = next(turns, None)
    while turn is not None:
        taken.append(turn)
        key = turn.launch.variant, turn.launch.launch
        is_hot, is_lost = key in discarded, key in lost
        status = Status.DISCARDED if is_hot and turn.may_discard else Status.FAILED if is_lost else Status.OK
        try:
            turn = turns.send(cast(Any, Ended(status, is_lost=is_lost)))
        except StopIteration:
            turn = None
    return taken


def names(turns: Sequence[ScheduledLaunch]) -> str:
    return " ".join(f"{turn.launch.variant.value[0]}{turn.launch.launch}" for turn in turns)


def test_launches_run_in_their_order() -> None:
    turns = ran(abba(2), set(), repeats=2)
    assert names(turns) == "f0 s0 p0 p1 s1 s2 p2 p3 s3"
    assert [(turn.number, turn.total) for turn in turns] == [(number, 9) for number in range(1, 10)]


def test_a_block_with_a_discarded_launch_is_broken_off_and_repeated_at_the_end_under_new_numbers() -> None:
    turns = ran(abba(2), {(P, 1)}, repeats=2)
    assert names(turns) == "f0 s0 p0 p1 s2 p2 p3 s3 s1000 p1000 p1001 s1001"
    assert turns[-1].number == turns[-1].total == 12


def test_what_is_repeated_may_be_repeated_again_until_no_retry_is_left() -> None:
    assert names(ran(abba(1), {(S, 0), (S, 1000), (S, 2000)}, repeats=2)) == "f0 s0 s1000 s2000 p2000 p2001 s2001"


def test_without_retries_nothing_is_discarded_and_the_float_launch_never_is() -> None:
    assert names(ran(abba(1), {(S, 0)}, repeats=0)) == "f0 s0 p0 p1 s1"
    assert [turn.may_discard for turn in ran(abba(1), set(), repeats=1)] == [False, True, True, True, True]


def test_a_block_in_which_the_device_was_lost_is_repeated_at_once() -> None:
    turns = ran(abba(2), set(), repeats=0, lost={(P, 0), (S, 1001)})
    assert names(turns) == "f0 s0 p0 s1000 p1000 p1001 s1001 s2000 p2000 p2001 s2001 s2 p2 p3 s3"


def test_what_was_lost_leaves_the_retries_of_what_was_hot() -> None:
    assert names(ran(abba(1), {(S, 1000)}, repeats=1, lost={(S, 0)})) == "f0 s0 s1000 s2000 p2000 p2001 s2001"


def test_an_odd_number_of_launches_repeats_its_half_block() -> None:
    launches = [LaunchPlan(variant=v, launch=n, sequence=()) for v, n in ((S, 0), (P, 0), (P, 1), (S, 1), (S, 2), (P, 2))]
    assert names(ran(launches, {(P, 2)}, repeats=1)) == "s0 p0 p1 s1 s2 p2 s1002 p1002"


def compared(
    statuses: Sequence[Status], *, looks: Looks, enough_at: int = 99, repeats: int = 1
) -> tuple[InterleavedSchedule, str]:
    """Run a comparison whose launches end as `statuses` says, then OK, and whose judge has seen enough at so many blocks."""
    side = {name: SideLaunch(installation=cast(Any, name), launch=abba(1)[1], settings=cast(Any, None)) for name in "AB"}
    launches = InterleavedSchedule(
        a=side["A"], b=side["B"], looks=looks, judge=lambda blocks, at: (at, len(blocks) >= enough_at), repeats=repeats, seed=SEED
    )
    turns, ends, order = launches.schedule(), iter(statuses), ""
    turn = next(turns, None)
    while turn is not None:
        order += f"{turn.installation}{turn.launch.launch} "
        end = cast(Any, Ended(next(ends, Status.OK)))
        try:
            turn = turns.send(end)
        except StopIteration:
            turn = None
    return launches, order.strip()


def test_two_sides_take_turns_until_the_last_look() -> None:
    launches, order = compared([], looks=Looks(at=(1, 2)))
    assert order == "A0 B0 B1 A1 B2 A2 A3 B3"
    assert len(launches.blocks) == 2
    assert (launches.broken, launches.is_over) == (None, True)


def test_a_judge_that_has_seen_enough_ends_it() -> None:
    launches, _ = compared([], looks=Looks(at=(2, 10)), enough_at=2)
    assert len(launches.blocks) == 2


def test_a_block_that_breaks_off_counts_on_neither_side_and_is_begun_anew() -> None:
    launches, order = compared([Status.OK, Status.FAILED], looks=Looks(at=(1,)))
    assert order == "A0 B0 A2 B2 B3 A3"
    assert len(launches.blocks) == 1
    assert all(record.status is Status.OK for block in launches.blocks for record in block)


def test_a_device_on_which_blocks_keep_breaking_off_is_given_up_with_the_reason() -> None:
    launches, order = compared([Status.OK, Status.SKIPPED, Status.FAILED], looks=Looks(at=(6,)))
    assert order == "A0 B0 A2"
    assert (launches.blocks, launches.broken, launches.is_over) == ([], "it did not work", True)


def test_a_judge_may_plan_more_looks() -> None:
    side = SideLaunch(installation=cast(Any, None), launch=abba(1)[1], settings=cast(Any, None))
    judge = lambda blocks, at: (Looks(at=(1, 3)), False)  # noqa: E731
    launches = InterleavedSchedule(a=side, b=side, looks=Looks(at=(1,)), judge=judge, repeats=0, seed=SEED)
    turns = launches.schedule()
    turn = next(turns)
    assert not launches.is_over
    totals = [turn.total]
    try:
        while True:
            totals.append(turns.send(cast(Any, Ended(Status.OK))).total)
    except StopIteration:
        pass
    assert len(launches.blocks) == 3
    assert totals == [4] * 4 + [12] * 8
