"""A night is judged by the ones before it: what changed is told with whose doing it is, and accidents are not."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from support.night_series import (
    FIRST,
    NEW,
    OLD,
    ROM_BYTES,
    TASK,
    around,
    launched,
    night,
    night_id,
    scored,
    steady,
    together,
)
from support.sentences import reads, says

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Acknowledgement, Measurement, Ruling, RulingKind, Subject
from quadbench.nightly.night_file import Limits
from quadbench.nightly.series import limit_of
from quadbench.nightly.verdicts import RULES, Detection, detect, missing_ruling, rulings_on
from quadbench.report.versus import ALL_TASKS, VersusDevice

NOW = FIRST + timedelta(days=100)
HISTORY = steady(20)
TIME = (TASK, "end_to_end")
Kinds = dict[tuple[str | None, str | None], RulingKind]


def gate(
    tonight: Measurement,
    history: Sequence[Measurement] = HISTORY,
    rulings: Sequence[Ruling] = (),
    words: Sequence[Acknowledgement] = (),
) -> Detection:
    ruled = {ruling.night for ruling in rulings}
    clean = clean_of([one for one in history if one.night not in ruled])
    return detect(tonight, history, [*clean, *rulings], words, Limits())


def clean_of(history: Sequence[Measurement]) -> list[Ruling]:
    """The rulings that nights were clean."""
    return [ruling for one in history for ruling in accepted(one)]


def accepted(measured: Measurement) -> list[Ruling]:
    """The ruling that a night was clean."""
    where = measured.night, measured.case, measured.device, measured.address
    return [replace(missing_ruling(*where, cause="as usual", owner=None, now=NOW), kind=RulingKind.CLEAN)]


def rule(suspected: Detection, confirmed: VersusDevice | None = None) -> tuple[Ruling, ...]:
    comparison = "confirming" if confirmed else None
    return rulings_on(suspected, confirmed=confirmed, comparison=comparison, owner="a@b", now=NOW)


def kinds(rulings: Sequence[Ruling]) -> Kinds:
    return {(ruling.task, ruling.key): ruling.kind for ruling in rulings}


def word(number: int, days: int) -> Acknowledgement:
    until = FIRST + timedelta(days=number + days)
    since = FIRST + timedelta(days=number)
    return Acknowledgement(
        case="restyle-s25", night=night_id(number), reason="more steps", owner="a@b", made_at=FIRST, since=since, until=until
    )


def test_a_night_like_those_before_is_clean_in_one_ruling() -> None:
    (ruling,) = rule(gate(night(20, 1.5)))
    assert (ruling.kind, ruling.task, ruling.detector) == (RulingKind.CLEAN, None, RULES)
    reads(ruling.cause, 3, 20)


def test_a_step_of_new_files_is_suspected_and_a_regression_once_launches_in_turn_confirm_it() -> None:
    suspected = gate(night(20, 1.5 * 1.05, subject=NEW))
    assert suspected.to_confirm
    assert suspected.last_good == OLD
    _, ruling = rule(suspected, launched(1.05))
    assert (ruling.kind, ruling.last_good, ruling.comparison) == (RulingKind.REGRESSION, OLD, "confirming")
    says(ruling.cause)
    assert ruling.ratio == pytest.approx(1.05, rel=0.005)


def test_new_files_that_are_faster_are_an_improvement_from_which_on_the_usual_is_told() -> None:
    faster = night(20, 1.5 * 0.9, subject=NEW)
    rulings = rule(gate(faster), launched(0.9))
    assert rulings[1].kind is RulingKind.IMPROVEMENT
    after = gate(night(21, 1.5 * 0.9, subject=NEW), [*HISTORY, faster], rulings)
    assert not after.suspects
    assert after.last_good == NEW
    back = gate(night(21, 1.5, subject=OLD), [*HISTORY, faster], rulings)
    assert back.to_confirm
    assert back.last_good == NEW


def test_what_launches_in_turn_do_not_confirm_is_clean() -> None:
    suspected = gate(night(20, 1.5 * 1.02, subject=NEW))
    assert suspected.to_confirm
    assert kinds(rule(suspected, launched(1.0)))[TIME] is RulingKind.CLEAN


def test_what_was_cleared_by_launches_in_turn_is_not_asked_again() -> None:
    tonight = night(20, 1.5 * 1.02, subject=NEW)
    rulings = rule(gate(tonight), launched(1.0))
    after = gate(night(21, 1.5 * 1.02, subject=NEW), [*HISTORY, tonight], rulings)
    assert (after.suspects, after.last_good, after.is_same) == ((), OLD, True)


def test_a_step_of_the_same_files_is_the_environments_and_asks_for_no_launches() -> None:
    suspected = gate(around(night(20, 1.5 * 1.2), Android="17"))
    assert not suspected.to_confirm
    ruling = rule(suspected)[1]
    assert ruling.kind is RulingKind.ENVIRONMENT
    says(ruling.cause, 16, 17)


def test_a_large_step_of_new_files_that_launches_in_turn_do_not_show_is_the_environments() -> None:
    assert kinds(rule(gate(night(20, 1.5 * 1.2, subject=NEW)), launched(1.0)))[TIME] is RulingKind.ENVIRONMENT


def test_a_change_in_many_small_steps_is_measured_against_the_files_before_all_of_them() -> None:
    nights, rulings = list(HISTORY), list[Ruling]()
    for number in range(20, 50):
        slower = 1.002 ** (number - 19)
        tonight = night(number, 1.5 * slower, subject=Subject(bundle=f"{number:064x}"))
        suspected = gate(tonight, nights, rulings)
        assert suspected.last_good == OLD
        told = rule(suspected, launched(slower) if suspected.to_confirm else None)
        nights.append(tonight)
        rulings += told
        if RulingKind.REGRESSION in kinds(told).values():
            break
    (ruling,) = (one for one in told if one.key == "end_to_end")
    assert number - 19 <= 20
    assert (ruling.kind, ruling.since) == (RulingKind.REGRESSION, night_id(number))
    assert RulingKind.ENVIRONMENT not in kinds(rulings).values()


def test_a_change_of_which_launches_in_turn_may_explain_a_part_is_not_called_the_environments() -> None:
    suspected = gate(night(20, 1.5 * 1.045, subject=NEW), steady(20, noise=0.003))
    ruling = rule(suspected, launched(1.026, noise=0.001))[1]
    assert ruling.kind is RulingKind.INCONCLUSIVE
    says(ruling.cause, "2.6")
    assert kinds(rule(suspected, launched(1.002, noise=0.001)))[TIME] is RulingKind.ENVIRONMENT


def test_launches_in_turn_that_do_not_decide_it_are_inconclusive() -> None:
    suspected = gate(night(20, 1.5 * 1.2, subject=NEW))
    assert kinds(rule(suspected, launched(1.05, noise=0.1)))[TIME] is RulingKind.INCONCLUSIVE
    assert kinds(rule(suspected))[TIME] is RulingKind.INCONCLUSIVE


def test_what_launches_in_turn_prove_of_another_figure_counts_too() -> None:
    suspected = gate(night(20, 1.5 * 1.05, subject=NEW))
    told = launched(1.05)
    other = launched(1.2, key="peak_ram").rows
    rulings = rule(suspected, replace(told, rows=told.rows + other))
    assert kinds(rulings)[(TASK, "peak_ram")] is RulingKind.REGRESSION


def test_a_shift_of_the_yardstick_is_the_devices() -> None:
    suspected = gate(night(20, 1.5, yardstick=1.2), [night(n, 1.5, yardstick=1 + 0.001 * (n % 3)) for n in range(20)])
    (ruling,) = rule(suspected)
    assert ruling.kind is RulingKind.ENVIRONMENT
    says(ruling.cause, "19.9")


def test_one_byte_more_of_new_files_is_a_regression_without_launches() -> None:
    suspected = gate(night(20, 1.5, subject=NEW, rom=ROM_BYTES + 1))
    assert not suspected.to_confirm
    ruling = rule(suspected)[1]
    assert (ruling.key, ruling.kind) == ("lora_rom", RulingKind.REGRESSION)
    says(ruling.cause, "3,000,001", "3,000,000")


def test_pictures_that_are_less_like_the_reference_are_a_regression() -> None:
    tonight = night(20, 1.5, subject=NEW)
    worse = replace(tonight, points=(*tonight.points[:2], replace(tonight.points[2], value=29.0)))
    assert kinds(rule(gate(worse)))[(TASK, "psnr")] is RulingKind.REGRESSION


def test_pictures_that_change_on_files_which_ran_the_night_before_are_the_environments() -> None:
    before, tonight = night(20, 1.5, subject=NEW), night(21, 1.5, subject=NEW)
    worse = replace(tonight, points=(*tonight.points[:2], replace(tonight.points[2], value=29.0)))
    assert kinds(rule(gate(worse, [*HISTORY, before])))[(TASK, "psnr")] is RulingKind.ENVIRONMENT


def test_pictures_that_the_environment_changed_are_the_new_level_and_small_changes_add_up_from_it() -> None:
    def drawn(number: int, psnr: float, files: int) -> Measurement:
        tonight = night(number, 1.5, subject=OLD if files == 0 else Subject(bundle=f"{files:064x}"))
        return replace(tonight, points=(*tonight.points[:2], replace(tonight.points[2], value=psnr)))

    nights, rulings, told = list(HISTORY), list[Ruling](), list[RulingKind | None]()
    for number, (psnr, files) in enumerate([(29.0, 0), (29.0, 0), (29.0, 1), (28.7, 2), (28.4, 3)], start=20):
        nights.append(drawn(number, psnr, files))
        ruled = rule(gate(nights[-1], nights[:-1], rulings))
        rulings += ruled
        told.append(kinds(ruled).get((TASK, "psnr")))
    assert told == [RulingKind.ENVIRONMENT, None, None, None, RulingKind.REGRESSION]


def test_a_confirmed_regression_is_told_again_without_launches_as_long_as_its_files_run() -> None:
    slower = night(20, 1.5 * 1.05, subject=NEW)
    rulings = rule(gate(slower), launched(1.05))
    again = gate(night(21, 1.5 * 1.02, subject=NEW), [*HISTORY, slower], rulings)
    assert not again.to_confirm
    ruling = rule(again)[1]
    assert (ruling.kind, ruling.comparison, ruling.last_good) == (RulingKind.REGRESSION, "confirming", OLD)
    mended = gate(night(21, 1.5), [*HISTORY, slower], rulings)
    assert not mended.suspects


def test_what_was_acknowledged_is_usual_from_then_on_until_the_word_is_over() -> None:
    slower = [night(number, 1.5 * 1.2, subject=NEW) for number in range(20, 30)]
    cleared = [replace(ruling, kind=RulingKind.CLEAN) for ruling in rule(gate(slower[0]), launched(1.2))]
    accepted = gate(night(30, 1.5 * 1.2, subject=NEW), [*HISTORY, *slower], cleared, [word(20, days=30)])
    assert (accepted.suspects, accepted.last_good) == ((), NEW)
    over = gate(night(30, 1.5 * 1.2, subject=NEW), [*HISTORY, *slower], cleared, [word(20, days=10)])
    assert (over.to_confirm, over.last_good) == (False, OLD)
    again = rule(over)[1]
    assert (again.kind, again.since, again.nights, again.good_night) == (RulingKind.REGRESSION, night_id(20), 11, night_id(19))


def test_a_word_that_is_over_is_told_where_nothing_before_it_is_remembered() -> None:
    accepted = [night(number, 1.5, subject=NEW) for number in range(60)]
    (ruling,) = rule(gate(night(60, 1.5, subject=NEW), accepted, (), [word(0, days=60)]))
    assert ruling.kind is RulingKind.INCONCLUSIVE
    reads(ruling.cause, "2026-03-02")


def test_a_regression_stays_one_when_no_good_night_is_remembered() -> None:
    nights, rulings = list(HISTORY), list[Ruling]()
    for number in range(20, 70):
        nights.append(night(number, 1.5 * 1.2, subject=NEW))
        rulings += rule(gate(nights[-1], nights[:-1], rulings), launched(1.2))
    assert {ruling.kind for ruling in rulings if ruling.key == "end_to_end"} == {RulingKind.REGRESSION}
    other = gate(night(70, 1.5 * 1.2, subject=Subject(bundle="c" * 64)), nights, rulings)
    assert other.to_confirm
    assert other.last_good == OLD


def test_new_files_with_few_nights_before_them_are_always_launched_in_turn() -> None:
    suspected = gate(night(2, 1.5, subject=NEW), HISTORY[:2])
    assert suspected.to_confirm
    assert kinds(rule(suspected, launched(1.1)))[TIME] is RulingKind.REGRESSION
    (ruling,) = rule(suspected, launched(1.0))
    assert ruling.kind is RulingKind.CLEAN
    (ruling,) = rule(suspected)
    assert ruling.kind is RulingKind.INCONCLUSIVE
    says(ruling.cause, 2)


def test_the_first_night_is_clean_and_says_why() -> None:
    (ruling,) = rule(gate(night(0, 1.5), []))
    assert ruling.kind == RulingKind.CLEAN
    reads(ruling.cause)


def test_a_figure_that_is_gone_is_missing() -> None:
    tonight = night(20, 1.5)
    assert kinds(rule(gate(replace(tonight, points=tonight.points[:2]))))[(TASK, "psnr")] is RulingKind.MISSING


@pytest.mark.parametrize("ratio", [math.nan, math.inf, 0.0, -1.0])
def test_what_cannot_be_a_ratio_never_passes_and_never_counts_as_usual(ratio: float) -> None:
    assert kinds(rule(gate(night(20, ratio))))[TIME] is RulingKind.INCONCLUSIVE
    assert not gate(night(21, 1.5), [*HISTORY, night(20, ratio)]).suspects


def test_nights_on_a_hot_device_do_not_say_what_is_usual() -> None:
    hot = [replace(night(number, 3.0), caveats=(Caveat.THROTTLED,)) for number in range(20, 40)]
    assert not gate(night(40, 1.5), [*HISTORY, *hot]).suspects


def test_another_yardstick_begins_anew() -> None:
    tonight = replace(night(20, 3.0), yardstick="e" * 64)
    assert not gate(tonight).suspects


def test_small_steps_are_seen_by_the_nights_together_that_new_files_have_run() -> None:
    history = [night(number, 1.5 * (1 + 0.025 * (number % 3 - 1))) for number in range(20)]
    after = [night(number, 1.5 * 1.04, subject=NEW) for number in range(20, 25)]
    seen = [gate(tonight, [*history, *after[:number]]).to_confirm for number, tonight in enumerate(after)]
    assert (seen[0], seen[-1]) == (False, True)


def standing(files: int, ratio: float = 1.05) -> tuple[list[Measurement], list[Ruling]]:
    """Nights from the 20th on that new files make slower, and their rulings; files change `files` times after it."""
    nights, rulings = list(HISTORY), list[Ruling]()
    for number in range(20, 21 + files):
        nights.append(night(number, 1.5 * ratio, subject=Subject(bundle=f"{number:064x}")))
        suspected = gate(nights[-1], nights[:-1], rulings)
        rulings += rule(suspected, launched(ratio) if suspected.to_confirm else None)
    return nights, rulings


def test_a_regression_stands_whatever_files_come_until_launches_in_turn_show_no_difference() -> None:
    nights, rulings = standing(12)
    told = [ruling for ruling in rulings if ruling.key == "end_to_end"]
    assert [(ruling.kind, ruling.since, ruling.nights) for ruling in told] == [
        (RulingKind.REGRESSION, night_id(20), 1 + later) for later in range(13)
    ]
    assert [ruling.is_standing for ruling in told] == [False] + [True] * 12
    assert {ruling.good_night for ruling in told} == {night_id(19)}
    mended = gate(night(33, 1.5, subject=NEW), nights, rulings)
    assert mended.to_confirm
    ended = rule(mended, launched(1.0))[1]
    assert (ended.kind, ended.since, ended.nights) == (RulingKind.CLEAN, night_id(20), 14)
    after = gate(night(34, 1.5, subject=NEW), [*nights, mended.tonight], [*rulings, *rule(mended, launched(1.0))])
    assert (after.suspects, after.ended, after.is_same) == ((), (), True)


def test_a_regression_that_stands_is_launched_again_with_new_files_at_the_latest_every_sixth_night() -> None:
    told = [ruling for ruling in standing(12)[1] if ruling.key == "end_to_end"]
    assert len({ruling.cause for ruling in told}) == 2
    nights, rulings = list(HISTORY), list[Ruling]()
    asked = []
    for number in range(20, 33):
        nights.append(night(number, 1.5 * 1.05, subject=Subject(bundle=f"{number:064x}")))
        suspected = gate(nights[-1], nights[:-1], rulings)
        told = rule(suspected, launched(1.05) if suspected.to_confirm else None)
        asked += [number] if suspected.to_confirm else []
        rulings += [replace(one, comparison=f"{number}") if suspected.to_confirm else one for one in told]
    assert asked == [20, 25, 30]


@pytest.mark.parametrize("launches", [None, launched(1.02, noise=0.1)])
def test_a_regression_stands_while_launches_in_turn_do_not_decide_or_cannot_be_made(launches: VersusDevice | None) -> None:
    nights, rulings = standing(3)
    suspected = gate(night(24, 1.5, subject=NEW), nights, rulings)
    assert suspected.to_confirm
    ruling = rule(suspected, launches)[1]
    assert (ruling.kind, ruling.since, ruling.nights) == (RulingKind.REGRESSION, night_id(20), 5)
    says(ruling.cause)


def test_a_regression_ends_when_the_files_before_it_are_back() -> None:
    nights, rulings = standing(3)
    back = gate(night(24, 1.5), nights, rulings)
    assert (back.to_confirm, [one.since for one in back.ended]) == (False, [night_id(20)])
    ended = rule(back)[1]
    assert (ended.kind, ended.since, ended.nights) == (RulingKind.CLEAN, night_id(20), 5)
    says(ended.cause)


def test_nights_that_were_interrupted_or_lack_the_figure_do_not_end_a_regression() -> None:
    nights, rulings = standing(3)
    other = Subject(bundle="c" * 64)
    lacking = night(24, 1.5, subject=other)
    lacking = replace(lacking, points=lacking.points[1:])
    told = rule(gate(lacking, nights, rulings))
    assert kinds(told)[TIME] is RulingKind.MISSING
    history = [*nights, lacking, night(25, 1.5, subject=other)]
    where = [replace(one, night="other") for one in accepted(history[-1])]  # the last one has no ruling
    after = detect(night(26, 1.5 * 1.05, subject=other), history, [*clean_of(HISTORY), *rulings, *told, *where], (), Limits())
    assert [one.known.since for one in after.suspects if one.known] == [night_id(20)]


def test_a_regression_whose_figure_is_not_measured_is_missing_each_night_and_stands_after_them() -> None:
    nights, rulings = standing(1)
    for number in (22, 23, 24):
        without = replace(night(number, 1.5, subject=NEW), points=night(number, 1.5).points[1:])
        told = rule(gate(without, nights, rulings))
        assert kinds(told)[TIME] is RulingKind.MISSING
        nights, rulings = [*nights, without], [*rulings, *told]
    (ruling,) = (one for one in rule(gate(night(25, 1.5), nights, rulings)) if one.key == "end_to_end")
    assert (ruling.kind, ruling.since, ruling.nights) == (RulingKind.CLEAN, night_id(20), 6)


@pytest.mark.parametrize("ratio", [math.nan, 0.0])
def test_a_night_whose_value_is_not_valid_does_not_end_a_regression(ratio: float) -> None:
    nights, rulings = standing(3)
    other = Subject(bundle="c" * 64)
    nights.append(night(24, ratio, subject=other))
    rulings += rule(gate(nights[-1], nights[:-1], rulings))
    ruling = rule(gate(night(25, 1.5 * 1.05, subject=other), nights, rulings))[1]
    assert (ruling.kind, ruling.since, ruling.nights) == (RulingKind.REGRESSION, night_id(20), 6)


def test_a_byte_more_stands_for_longer_than_nights_are_remembered() -> None:
    nights, rulings = list(HISTORY), list[Ruling]()
    for number in range(20, 70):
        nights.append(night(number, 1.5, subject=NEW, rom=ROM_BYTES + 1))
        rulings += rule(gate(nights[-1], nights[:-1], rulings))
    told = [ruling for ruling in rulings if ruling.key == "lora_rom"]
    assert [(one.kind, one.since, one.nights) for one in told] == [
        (RulingKind.REGRESSION, night_id(20), later) for later in range(1, 51)
    ]
    mended = rule(gate(night(70, 1.5, subject=NEW), nights, rulings))
    assert [(one.kind, one.nights) for one in mended if one.key == "lora_rom"] == [(RulingKind.CLEAN, 51)]


def test_only_launches_in_turn_or_a_person_make_files_the_last_good_ones() -> None:
    unsuspected = [night(number, 1.5, subject=Subject(bundle=f"{number:064x}")) for number in range(20, 50)]
    assert gate(night(50, 1.5, subject=NEW), [*HISTORY, *unsuspected]).last_good == OLD
    words = [word(30, days=90)]
    assert gate(night(50, 1.5, subject=NEW), [*HISTORY, *unsuspected], (), words).last_good == unsuspected[10].subject


def test_an_acknowledgement_makes_files_the_last_good_ones_once_however_long_it_holds() -> None:
    nights, rulings, words = list(HISTORY), list[Ruling](), [word(20, days=300)]
    for number in range(20, 90):
        nights.append(night(number, 1.5, subject=Subject(bundle=f"{number:064x}")))
        suspected = gate(nights[-1], nights[:-1], rulings, words)
        rulings += rule(suspected, launched(1.0) if suspected.to_confirm else None)
    assert suspected.last_good == nights[20].subject


def test_what_was_not_measured_is_said() -> None:
    ruling = missing_ruling(night_id(3), "restyle-s25", "adb:R5CX", "s25", cause="it is gone", owner=None, now=NOW)
    assert (ruling.kind, ruling.cause) == (RulingKind.MISSING, "it is gone")


@pytest.mark.parametrize(
    ("key", "own", "inherited"),
    [
        ("end_to_end", 0.02, 0.02),
        ("session_load", 0.2, 0.02),
        ("switch", 0.1, 0.02),
        ("peak_ram", 0.05, 0.05),
        ("lora_rom", 0, 0),
    ],
)
def test_loads_and_switches_have_limits_of_their_own_where_the_file_says_so_and_else_that_of_times(
    key: str, own: float, inherited: float
) -> None:
    assert math.expm1(limit_of(key, Limits(time=0.02, session_load=0.2, switch=0.1))) == pytest.approx(own)
    assert math.expm1(limit_of(key, Limits(time=0.02))) == pytest.approx(inherited)


@pytest.mark.parametrize(
    ("ssim", "st_lpips", "kind"),
    [(0.80, 0.1, RulingKind.REGRESSION), (0.9, 0.12, RulingKind.REGRESSION), (0.9, 0.08, RulingKind.IMPROVEMENT)],
)
def test_scores_of_pictures_need_no_launches_and_each_gets_better_in_its_own_direction(
    ssim: float, st_lpips: float, kind: RulingKind
) -> None:
    history = [scored(one, ssim=0.9, st_lpips=0.1) for one in HISTORY]
    suspected = gate(scored(night(20, 1.5, subject=NEW), ssim=ssim, st_lpips=st_lpips), history)
    assert not suspected.to_confirm
    assert set(kinds(rule(suspected)).values()) == {RulingKind.CLEAN, kind}
    slight = gate(scored(night(20, 1.5, subject=NEW), ssim=0.89, st_lpips=0.101), history)
    assert [ruling.kind for ruling in rule(slight)] == [RulingKind.CLEAN]
    elsewhere = rule(gate(scored(night(20, 1.5), ssim=ssim, st_lpips=st_lpips), history))
    assert set(kinds(elsewhere).values()) == {RulingKind.CLEAN, RulingKind.ENVIRONMENT}


@pytest.mark.parametrize(("metric", "none"), [("st_lpips", 0.0), ("kid", 0.0), ("kid", -0.002)])
def test_a_distance_of_none_stays_clean_and_one_that_falls_to_it_is_an_improvement(metric: str, none: float) -> None:
    tonight = scored(night(20, 1.5, subject=NEW), **{metric: none})
    (same,) = rule(gate(tonight, [scored(one, **{metric: 0.0}) for one in HISTORY]))
    assert same.kind is RulingKind.CLEAN
    told = rule(gate(tonight, [scored(one, **{metric: 0.02}) for one in HISTORY]))[1]
    assert told.kind is RulingKind.IMPROVEMENT
    reads(told.cause, "100.0", f"{none:.4g}")


def test_a_distance_that_rises_from_none_is_inconclusive_with_its_reason_until_a_person_says_that_it_shall_be_so() -> None:
    history = [scored(one, st_lpips=0.0) for one in HISTORY]
    tonight = scored(night(20, 1.5, subject=NEW), st_lpips=0.02)
    told = rule(gate(tonight, history))[1]
    assert (told.kind, told.value, told.expected) == (RulingKind.INCONCLUSIVE, 0.02, 0.0)
    reads(told.cause, "0.02", 0)
    same = rule(gate(replace(tonight, subject=OLD), history))[1]
    assert same.kind is RulingKind.ENVIRONMENT
    after = scored(night(21, 1.5, subject=NEW), st_lpips=0.02)
    cleared = [replace(told, kind=RulingKind.CLEAN)]
    assert not gate(after, [*history, tonight], cleared, [word(20, days=9)]).suspects


def test_the_mean_over_all_tasks_and_that_of_the_yardstick_are_held_against_those_of_the_same_tasks() -> None:
    history = [together(one, 1.5, "draw") for one in HISTORY]
    assert (ALL_TASKS, "end_to_end") in {one.name for one in gate(together(night(20, 1.5), 3.0, "draw"), history).suspects}
    more = gate(together(night(20, 1.5, subject=NEW), 3.0, "sticker"), history)
    assert (more.suspects, more.yardstick) == ((), None)


def test_what_somebody_calls_nights_tells_nothing_of_their_order() -> None:
    names = {night_id(number): f"build-{80 + number}" for number in range(31)}  # build-99, build-100
    slower = [night(number, 1.5 * 1.2, subject=NEW) for number in range(19, 30)]
    history = [replace(one, night=names[one.night]) for one in (*HISTORY[:19], *slower)]
    tonight = replace(night(30, 1.5 * 1.2, subject=NEW), night=names[night_id(30)])
    accepted = gate(tonight, history, (), [replace(word(19, days=30), night=names[night_id(19)])])
    assert (accepted.suspects, accepted.last_good) == ((), NEW)


def test_few_nights_and_launches_in_turn_that_decide_nothing_are_inconclusive() -> None:
    (ruling,) = rule(gate(night(2, 1.5, subject=NEW), HISTORY[:2]), launched(1.0, noise=0.2))
    assert ruling.kind is RulingKind.INCONCLUSIVE
    says(ruling.cause)


def test_files_that_few_nights_and_launches_in_turn_have_cleared_are_not_launched_again() -> None:
    tonight = night(2, 1.5, subject=NEW)
    rulings = rule(gate(tonight, HISTORY[:2]), launched(1.0))
    after = gate(night(3, 1.5, subject=NEW), [*HISTORY[:2], tonight], rulings)
    assert (after.suspects, after.last_good, after.is_same) == ((), HISTORY[0].subject, True)


def test_what_a_word_in_force_accepts_is_overruled_by_no_launches_against_the_files_before_it() -> None:
    history, new = [night(number, 1.5) for number in range(2)], night(2, 1.5, subject=NEW)
    cleared = [replace(ruling, kind=RulingKind.CLEAN) for ruling in rule(gate(new, history))]
    after = gate(night(3, 1.5, subject=NEW), [*history, new], cleared, [word(2, days=30)])
    assert (after.to_confirm, after.last_good) == (False, NEW)
    ram = replace(night(20, 1.5).points[0], key="peak_ram")
    tonight = night(20, 1.5 * 1.05, subject=NEW)
    tonight = replace(tonight, points=(*tonight.points, ram))
    figure = replace(word(20, days=30), task=TASK, key="peak_ram")
    for words, is_told in ((), True), ([figure], False), ([replace(figure, since=FIRST)], True):
        told = kinds(rule(gate(tonight, words=words), launched(1.2, key="peak_ram")))
        assert ((TASK, "peak_ram") in told) is is_told


def test_a_night_that_nobody_ruled_on_says_nothing_of_what_is_good() -> None:
    unruled = [night(number, 1.5, subject=NEW) for number in range(20, 26)]
    clean = [ruling for one in HISTORY for ruling in accepted(one)]
    after = detect(night(26, 1.5, subject=NEW), [*HISTORY, *unruled], clean, (), Limits())
    assert after.last_good == OLD
    assert detect(unruled[0], HISTORY[:1], (), (), Limits()).last_good == OLD


def test_why_launches_in_turn_came_to_nothing_stands_only_where_they_would_have_told() -> None:
    tonight = scored(night(20, 1.5 * 1.2, subject=NEW), st_lpips=0.02)
    suspected = gate(tonight, [scored(one, st_lpips=0.0) for one in HISTORY])
    rulings = rulings_on(suspected, confirmed=None, comparison=None, owner=None, now=NOW, why="it was lost")
    told = {ruling.key: ruling.cause for ruling in rulings if ruling.kind is RulingKind.INCONCLUSIVE}
    says(told["end_to_end"])
    says(told["st_lpips"], 0)
