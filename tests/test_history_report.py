"""A history as a page says first what changed, since when, by what and where, and no text of others is more than text."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import timedelta

import pytest
from support.histories import NOW, REGRESSION, SLOWER, WORD, on, told
from support.night_samples import ATTACK
from support.night_series import FIRST, NEW, TASK, around, night, night_id, steady
from support.report_page import Page
from support.sentences import reads, says

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Point, RulingKind
from quadbench.nightly.history import CaseHistory, sentence, summary
from quadbench.nightly.history_chart import MAX_NIGHTS, history_chart
from quadbench.nightly.history_formats import CaseData, history_view
from quadbench.report.page import page_environment

PARTS = """{% from "case_parts.html.j2" import answer, contents, devices, doubts, reading %}
{{ answer(view) }}{{ doubts(view) }}{{ contents(view) }}{{ reading(view) }}{{ devices(view) }}"""


def page(*histories: CaseData) -> str:
    """The parts of a case's live page that are about its history."""
    return page_environment().from_string(PARTS).render(view=history_view(histories, NOW))


def sentences(*histories: CaseHistory) -> tuple[str, ...]:
    return summary(histories, NOW)


def test_devices_on_which_the_same_changed_in_the_same_night_are_told_together() -> None:
    histories = [told(on(name, SLOWER)).history for name in ("s25", "tabs11")]
    steady_one = told(on("a55", steady(30))).history
    reads(sentences(steady_one, *histories), "restyle-s25", "7.3", "tabs11", night_id(20), "a55", 30)


def test_what_is_open_stands_before_what_was_acknowledged_and_what_got_better() -> None:
    faster = [*steady(25), *(night(number, 1.2 + 0.01 * (number % 2), subject=NEW) for number in range(25, 40))]
    accepted = told(on("tabs11", SLOWER), words=[WORD]).history
    first, second, third = sentences(told(on("a55", faster)).history, accepted, told(SLOWER).history)
    says(first, "7.3", "s25", night_id(20))
    says(second, "a55", night_id(25))
    says(third, "tabs11", night_id(20), "2026-03-31", "ana@lab", "four more steps")


def test_the_latest_change_stands_first_whatever_its_night_is_called() -> None:
    later = [*steady(25), *(night(number, 1.6 + 0.01 * (number % 2), subject=NEW) for number in range(25, 35))]
    histories = [
        told([replace(one, night=f"build-{75 + n}") for n, one in enumerate(on(name, nights))]).history
        for name, nights in (("s25", SLOWER), ("tabs11", later))
    ]
    first, second = sentences(*histories)
    assert "on tabs11 since build-100" in first
    assert "on s25 since build-95" in second


@pytest.mark.parametrize(("later", "is_told"), [(timedelta(days=-1), False), (timedelta(days=1), True)])
def test_a_regression_that_is_told_after_an_acknowledgement_is_told_whatever_it_covers(later: timedelta, is_told: bool) -> None:
    ruling = replace(REGRESSION, night=SLOWER[-1].night, told_at=WORD.made_at + later)
    assert ("REGRESSION" in " ".join(sentences(told(SLOWER, [ruling], [WORD]).history))) is is_told


@pytest.mark.parametrize("change", [{"until": NOW - timedelta(1)}, {"key": "peak_ram"}, {"night": night_id(3), "since": FIRST}])
def test_a_word_that_is_over_or_about_something_else_accepts_nothing(change: dict[str, object]) -> None:
    (sentence,) = sentences(told(SLOWER, words=[replace(WORD, **change)]).history)
    says(sentence)


def test_a_change_of_the_environment_is_named() -> None:
    updated = [around(night(number, 1.65), Android="17") for number in range(20, 30)]
    (sentence,) = sentences(told([*steady(20), *updated]).history)
    says(sentence, 16, 17)


def test_a_regression_that_stands_is_the_first_sentence_and_nothing_says_that_nothing_has_changed() -> None:
    nights = [*steady(20), *(night(number, 1.5, subject=NEW) for number in range(20, 23))]  # too few for a shift
    rulings = [
        replace(REGRESSION, night=night_id(number), since=night_id(20), nights=number - 19, good_night=night_id(17))
        for number in range(20, 23)
    ]
    (first,) = sentences(told(nights, rulings).history)
    reads(first, "restyle-s25", night_id(20), 3, night_id(17), "7.0")
    assert sentence(told(nights, rulings).history).endswith(first)
    ended = replace(rulings[-1], kind=RulingKind.CLEAN, cause="it is no longer worse")
    (after,) = sentences(told(nights, [*rulings[:-1], ended]).history)
    reads(after, "restyle-s25", 23)


def test_the_page_is_one_file_without_script_whose_first_sentence_is_the_result() -> None:
    doubtful = [replace(one, caveats=(Caveat.THROTTLED,)) if n % 10 == 0 else one for n, one in enumerate(SLOWER)]
    html = page(told(on("a55", steady(30))), told(doubtful, [replace(REGRESSION, kind=RulingKind.INCONCLUSIVE)], [WORD]))
    read = Page(html)
    assert (read.wrong, read.open) == ([], [])
    assert read.count("script") == read.count("link") == read.count("img") == 0
    assert read.text.index(f"7.3 % slower than before on s25 since {night_id(20)}") < read.text.index("nothing significant")
    says(read.text, "s25", 3, 30, night_id(0), night_id(20), "2,991", "3,210")


def test_a_doubt_says_its_nights_and_that_the_change_is_told_by_others() -> None:
    nights = [around(one, Android="17") if n >= 10 else replace(one, caveats=(Caveat.THROTTLED,)) for n, one in enumerate(SLOWER)]
    text = Page(page(told(nights), told(on("tabs11", nights)))).text
    says(text, "s25", "tabs11", 10, 30, night_id(0), night_id(9))
    unchanged = [replace(one, caveats=(Caveat.THROTTLED,)) if n == 4 else one for n, one in enumerate(steady(30))]
    says(f"{Page(page(told(unchanged))).text} ", "s25", 1, 30, night_id(4))


def test_charts_are_explained_before_the_first_of_them_with_why_a_ruling_s_figure_is_another() -> None:
    before = page(told(SLOWER, [REGRESSION])).partition("viewBox")[0]
    says(before)


def pictures(html: str) -> list[ET.Element]:
    whole = [f"<svg{part.partition('</svg>')[0]}</svg>" for part in html.split("<svg")[1:]]
    return [ET.fromstring(one) for one in whole if "viewBox" in one]


def classes(picture: ET.Element, tag: str) -> list[str]:
    return [str(node.get("class")) for node in picture.iter(f"{{http://www.w3.org/2000/svg}}{tag}")]


def test_a_chart_has_levels_changes_rulings_doubts_words_and_environments() -> None:
    nights = [around(one, Android="17") if n >= 10 else one for n, one in enumerate(SLOWER)]
    nights[3] = replace(nights[3], caveats=(Caveat.THROTTLED,))
    (picture,) = pictures(page(told(nights, [REGRESSION], [WORD])))
    assert classes(picture, "line").count("level") == 3
    assert classes(picture, "line").count("edge") == 2
    assert classes(picture, "line").count("word") == 1
    assert classes(picture, "rect") == ["surroundings"]
    assert classes(picture, "circle").count("told regression") == 1
    assert classes(picture, "circle").count("doubtful") == 1
    texts = ["".join(node.itertext()) for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"End to end, restyle: case / yardstick", "the yardstick itself, ms", "2", "3", "acknowledged", "2026-01-30"} <= {
        *texts
    }


def test_an_axis_has_round_values_and_what_was_acknowledged_lies_below_the_dates() -> None:
    (picture,) = pictures(page(told(SLOWER, [REGRESSION], [WORD])))
    places = {"".join(node.itertext()): float(node.get("y", 0)) for node in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"1.50", "1.55", "1.60", "2,000"} <= {*places}
    assert places["acknowledged"] > places["2026-01-30"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0, 1e17])
def test_a_value_that_cannot_be_flattens_no_chart(value: float) -> None:
    spoilt = replace(SLOWER[4], points=(replace(SLOWER[4].points[0], ratio=value, value=value), *SLOWER[4].points[1:]))
    one = told([*SLOWER[:4], spoilt, *SLOWER[5:]])
    chart = history_chart(one.history.figures[0], one.history, one.nights)
    assert chart is not None
    heights = [float(y) for y in re.findall(r'[yc]y?[12]?="([\d.-]+)"', chart)]
    assert min(heights) >= 0
    assert not {"nan", "inf"} & {*re.findall(r"[a-z]+", chart)}


def test_a_single_night_has_no_chart_and_a_case_without_figures_has_a_page() -> None:
    assert not pictures(page(told(steady(1))))
    empty = [replace(one, points=()) for one in steady(3)]
    says(Page(page(told(empty))).text, "s25", 3)


def test_an_attack_in_any_text_is_only_text() -> None:
    nights = [
        replace(
            one,
            case=ATTACK,
            address=ATTACK,
            environment={ATTACK: f"{ATTACK}{n // 10}"},
            points=(*one.points, Point(task=ATTACK, key=ATTACK, value=1.0 + n)),
        )
        for n, one in enumerate(SLOWER)
    ]
    ruling = replace(REGRESSION, case=ATTACK, address=ATTACK, cause=ATTACK, owner=ATTACK, task=ATTACK, key=ATTACK)
    word = replace(WORD, case=ATTACK, reason=ATTACK, owner=ATTACK)
    html = page(told(nights, [ruling], [word], is_whole=True))
    read = Page(html)
    assert (read.wrong, read.open) == ([], [])
    assert read.count("script") == read.count("img") == 0
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert not {"\x1b", "\x00", "\u202e"} & {*html}
    assert pictures(html)


def test_a_page_of_many_devices_and_long_series_stays_short() -> None:
    long = [night(number, 1.5 + 0.05 * (number // 90 % 2)) for number in range(MAX_NIGHTS + 50)]
    rulings = [replace(REGRESSION, night=one.night, cause=f"{n} % slower") for n, one in enumerate(long)]
    one = told(long, rulings)
    html = page(*(CaseData(history=replace(one.history, address=f"s25-{n}"), nights=long) for n in range(100)))
    assert len(html) < 3_000_000
    assert len(pictures(html)) == 30
    says(Page(html).text, 70)


def test_rulings_of_nights_behind_each_other_that_say_the_same_stand_in_one_row() -> None:
    rulings = [replace(REGRESSION, night=night_id(n), told_at=FIRST + timedelta(days=n)) for n in range(20, 30)]
    other = replace(REGRESSION, night=night_id(29), kind=RulingKind.MISSING, task=TASK, key="psnr", cause="it is gone")
    text = Page(page(told(SLOWER, [*rulings, other]))).text
    says(text, night_id(20), night_id(29), 10)
    assert text.count("REGRESSION it is 7.0 % slower") == 1
