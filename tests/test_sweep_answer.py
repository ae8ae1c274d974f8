"""A sweep answers: what its settings buy, what beats what, how large the noise is, and what is not known."""

from dataclasses import replace

import pytest
from support.hand_made import EVEN, KEY, point, sweep_of
from support.sentences import reads, says

from quadbench.artifacts import Caveat
from quadbench.report.html import render_study
from quadbench.report.sweep import deltas, noise_of
from quadbench.report.sweep_answer import settling_command, sweep_answer, sweep_tables
from quadbench.study.run_sweep import SweepAxis, changed_tasks, vary_recipe

GOOD = (40.0, 42.0, 41.0, 43.0)
WORSE = (38.8, 40.9, 39.8, 41.7)  # of the same items, each by about 1.2 dB


def faster(times: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return tuple(time * factor for time in times)


def test_the_answer_says_what_a_setting_gives_up_for_what() -> None:
    int16 = point("int16", psnr=GOOD, end_to_end=EVEN, bytes=(10.0,))
    int8 = point("int8", psnr=WORSE, end_to_end=faster(EVEN, 0.8), bytes=(8.8,))
    first, second = sweep_answer(sweep_of(int16, int8))
    says(
        first,
        "precision.lora=int16",
        "41.5",
        "psnr",
        "restyle",
        "precision.lora=int8",
        "1.2",
        "1.1",
        "1.3",
        "20.0",
        "19.8",
        "20.2",
        "12.0",
    )
    reads(second)


def test_a_setting_that_is_better_in_something_and_worse_in_nothing_beats_the_others() -> None:
    good = point("good", psnr=GOOD, end_to_end=EVEN, bytes=(8.0,))
    poor = point("poor", psnr=WORSE, end_to_end=EVEN, bytes=(10.0,))
    sweep = sweep_of(poor, good)
    assert [one.is_best for one in sweep.points] == [False, True]
    says(sweep_answer(sweep)[1], "precision.lora=good")
    assert sweep_tables(sweep)[0].columns[-1] == "best"


def test_a_setting_without_pictures_is_not_called_beaten() -> None:
    failed = point("failed", bytes=(10.0,))
    said = sweep_answer(sweep_of(point("good", psnr=GOOD, bytes=(8.0,)), failed))
    assert not any("beat" in sentence.lower().replace("no setting is shown to beat another", "") for sentence in said)


def test_where_nothing_is_beaten_no_row_is_marked() -> None:
    sweep = sweep_of(point("a", psnr=GOOD, bytes=(10.0,)), point("b", psnr=WORSE, bytes=(8.0,)))
    table = sweep_tables(sweep)[0]
    assert "best" not in table.columns
    assert not any(note.startswith("*") for note in table.notes)


def test_what_cannot_be_told_apart_is_not_called_a_difference() -> None:
    noisy = (90.0, 110.0, 95.0, 105.0)
    a = point("a", psnr=(40.0, 42.0), end_to_end=noisy, bytes=(10.0,))
    b = point("b", psnr=(40.9, 41.0), end_to_end=faster(noisy, 1.03), bytes=(10.0,))
    first, second = sweep_answer(sweep_of(a, b))
    says(first, "0.1", 95, "12.1", "12.0", "3.0", "20.7")
    reads(second)
    assert not any(one.is_told for one in deltas(a, b).values())


def test_tasks_that_the_keys_do_not_change_show_the_noise_and_no_smaller_difference_of_times_counts() -> None:
    touched = [point("4", end_to_end=EVEN, psnr=GOOD), point("8", end_to_end=faster(EVEN, 1.06), psnr=GOOD)]
    others = [point("4", "draw", end_to_end=EVEN), point("8", "draw", end_to_end=faster(EVEN, 1.08))]
    alone, beside = sweep_of(*touched), sweep_of(*touched, *others)
    assert noise_of(alone, "local") is None
    assert noise_of(beside, "local") == pytest.approx(1.08)
    assert "time 6.0 % more" in sweep_answer(alone)[0]
    says(sweep_answer(beside)[0], "6.0")
    says(sweep_answer(beside)[-1], "8.0")
    says(sweep_tables(beside)[1].title)


def test_what_is_not_known_to_be_as_good_is_not_beaten() -> None:
    dear = point("dear", psnr=(40.0, 42.0, 41.0), bytes=(10.0,))
    cheap = point("cheap", psnr=(38.0, 42.5, 41.2), bytes=(8.0,))
    assert [one.is_best for one in sweep_of(dear, cheap).points] == [True, True]
    alike = point("alike", psnr=(40.1, 41.9, 41.0), bytes=(8.0,))
    assert [one.is_best for one in sweep_of(dear, alike).points] == [False, True]


def test_over_several_tasks_what_is_told_stands_before_what_is_not() -> None:
    both = ("restyle", "draw")
    before = [point("a", task, psnr=GOOD) for task in both]
    after = [point("b", "restyle", psnr=WORSE), point("b", "draw", psnr=(40.0, 42.9, 40.0, 43.0))]
    first = sweep_answer(sweep_of(*before, *after, touched=both))[0]
    says(first, "1.2", "restyle", "0.0", 95, "1.4", "1.1")


def test_of_settings_with_pictures_alike_the_faster_one_stands_first() -> None:
    slow, fast = point("2", psnr=(40.01, 42.0), end_to_end=(829.0,)), point("1", psnr=(40.0, 42.0), end_to_end=(400.0,))
    says(sweep_answer(sweep_of(slow, fast))[0], "precision.lora=1")


def test_a_range_over_tasks_cannot_be_read_as_an_interval() -> None:
    both = ("restyle", "draw")
    before = [point("a", task, psnr=GOOD, end_to_end=EVEN) for task in both]
    after = [point("b", task, psnr=GOOD, end_to_end=faster(EVEN, 1.2 + 0.1 * n)) for n, task in enumerate(both)]
    says(sweep_answer(sweep_of(*before, *after, touched=both))[0], "20.0", "30.0")


def test_what_cures_a_doubt_about_times_stands_before_the_command_that_settles_them() -> None:
    points = [replace(point(name, psnr=GOOD, end_to_end=(829.0,)), caveats=(Caveat.LOADED_HOST,)) for name in ("1", "2")]
    says(render_study(sweep_of(*points)).partition("<main>")[0])


def test_what_was_not_measured_is_said() -> None:
    said = sweep_answer(sweep_of(point("a", bytes=(10.0,)), point("b", bytes=(8.0,))))
    says(said)
    left_out = replace(sweep_of(point("a", psnr=GOOD)), left_out={f"{KEY}=b": "no memory"})
    reads(sweep_answer(left_out)[-1], f"{KEY}=b")
    says(sweep_answer(left_out)[0])
    reads(sweep_answer(sweep_of()))


def test_settings_without_a_figure_in_common_are_not_called_the_same() -> None:
    reads(sweep_answer(sweep_of(point("a", psnr=GOOD), point("b", bytes=(8.0,))))[1])
    says(sweep_answer(sweep_of(point("a"), point("b")))[1])
    said = sweep_answer(sweep_of(point("gone"), point("a", bytes=(8.0,)), point("b", bytes=(8.0,))))[1]
    reads(said, "precision.lora=gone")


def test_a_key_of_a_task_touches_that_task_and_one_of_the_precision_all() -> None:
    assert changed_tasks(vary_recipe("quickstart", [SweepAxis(key="tasks.restyle.sampler.steps", values=("4", "8"))])) == (
        "restyle",
    )
    assert changed_tasks(vary_recipe("quickstart", [SweepAxis(key="precision.lora", values=("int16", "int8"))])) == (
        "restyle",
        "remove-object",
    )
    assert changed_tasks(vary_recipe("quickstart", [SweepAxis(key="measure.iterations", values=("4", "8"))])) == ()


def test_the_next_step_launches_two_settings_in_turn_whose_times_are_not_told_apart() -> None:
    best, faster_one = point("b", psnr=GOOD, end_to_end=EVEN), point("a", psnr=WORSE, end_to_end=faster(EVEN, 0.8))
    same, once = point("same", psnr=WORSE, end_to_end=EVEN), point("once", psnr=WORSE, end_to_end=EVEN[:1])
    again = point("again", psnr=WORSE, end_to_end=faster(EVEN[:1], 0.8))
    assert settling_command(sweep_of(faster_one, best, same, once)) == ("compare", "run-b", "run-once", "--devices", "local")
    assert settling_command(sweep_of(once, again)) == ("compare", "run-again", "run-once", "--devices", "local")
    assert settling_command(sweep_of(faster_one, best, same)) == ()
    assert settling_command(sweep_of(point("a", psnr=GOOD))) == ()


def test_one_launch_a_side_gives_a_measured_difference_and_says_that_it_has_no_interval() -> None:
    first, second = sweep_answer(
        sweep_of(point("1", psnr=GOOD, end_to_end=(829.0,)), point("2", psnr=GOOD, end_to_end=(1747.0,)))
    )
    assert "PSNR the same" in first
    says(first, "110.7")
    reads(second)


def test_the_report_has_the_command_that_settles_times_before_every_doubt_and_no_other_advice() -> None:
    sweep = sweep_of(point("1", psnr=GOOD, end_to_end=(829.0,)), point("2", psnr=GOOD, end_to_end=(1747.0,)))
    html = render_study(sweep)
    words = ["quadbench", "compare", "run-1", "run-2", "--devices", "local"]
    command = " ".join(f"<span>{word}</span>" for word in words)
    assert html.index(command) < html.index('class="doubts"')
    assert "measure.launches" not in html
    says(html, "2.0")


def test_quality_that_no_setting_changes_is_not_drawn_over_the_settings_and_that_is_said() -> None:
    flat = [point("1", psnr=GOOD, end_to_end=EVEN), point("2", psnr=tuple(one + 0.01 for one in GOOD), end_to_end=EVEN)]
    apart = [flat[0], point("2", psnr=WORSE, end_to_end=EVEN)]
    unknown = [point("1", psnr=GOOD[:1], end_to_end=EVEN), point("2", psnr=WORSE[:1], end_to_end=EVEN)]
    pages = [render_study(sweep_of(*points)) for points in (flat, apart, unknown)]
    assert [page.count("<svg") for page in pages] == [1, 2, 2]
    assert ["There is no chart of quality" in page for page in pages] == [True, False, False]
