"""A night as it is told: the worst first, with cause and since when, and no text of others is anything but text."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from support.night_samples import (
    ATTACK,
    GOOD,
    NEW,
    NIGHTS,
    attacked_night,
    clean_night,
    night_id,
    ruling,
    sample_night,
    series,
)
from support.report_page import Page
from support.sentences import reads, says

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import RulingKind
from quadbench.nightly.night_report import ERROR, exit_code
from quadbench.report.night import NightView, night_view
from quadbench.report.night_formats import device_table, finding_lines, night_chart, render_night, write_night_report
from quadbench.results.layout import Layout


@pytest.fixture(scope="module")
def view() -> NightView:
    return night_view(sample_night(), series())


@pytest.fixture(scope="module")
def attacked() -> NightView:
    return night_view(*attacked_night())


def test_the_sentence_has_the_worst_first_and_counts_every_case_on_every_device(view: NightView) -> None:
    assert view.outcome is RulingKind.REGRESSION
    reads(view.sentence, "restyle", "s25", "5.2", "4.3", "6.1", 1, 10, 2, 3)


def test_the_sentence_names_every_device_on_which_the_worst_case_is_so() -> None:
    worse = [one for one in sample_night().rulings if one.kind is RulingKind.REGRESSION]
    more = [replace(one, device=f"adb:{name.upper()}", address=name) for name in ("s24", "s23") for one in worse]
    view = night_view(replace(sample_night(), rulings=(*worse, *more)), series())
    says(view.sentence, "restyle", "s23", "s24", "s25", "5.2")


def test_a_clean_night_says_so() -> None:
    view = night_view(clean_night(), series())
    reads(view.sentence, 8)
    assert view.outcome is RulingKind.CLEAN


def test_a_night_of_which_something_is_not_ruled_does_not_say_that_nothing_has_to_be_done() -> None:
    night = clean_night()
    first = night.measurements[0].case, night.measurements[0].device
    cut = replace(night, rulings=tuple(one for one in night.rulings if (one.case, one.device) != first))
    says(night_view(cut, series()).sentence, 8)
    assert [exit_code(one) for one in (night, cut)] == [0, ERROR]


def test_a_first_night_says_that_nothing_could_get_worse_yet() -> None:
    first = {place: nights[-1:] for place, nights in series().items() if nights[-1].night == clean_night().night_id}
    says(night_view(clean_night(), first).sentence)


def test_a_night_of_which_no_earlier_one_is_told_is_not_taken_for_the_first() -> None:
    later = {place: [replace(nights[-1], night="phones-2026-02-01")] for place, nights in series().items()}
    for told in ({}, {place: [] for place in later}, later):
        says(night_view(clean_night(), told).sentence)


def test_what_belongs_together_is_one_finding(view: NightView) -> None:
    assert [(one.kind, one.cases, one.address) for one in view.findings] == [
        (RulingKind.REGRESSION, ("restyle",), "s25"),
        (RulingKind.MISSING, ("restyle", "sticker"), "s24"),
        (RulingKind.INCONCLUSIVE, ("restyle",), "tabs11"),
        (RulingKind.ENVIRONMENT, ("restyle", "sticker"), "s23"),
        (RulingKind.IMPROVEMENT, ("sticker",), "a55"),
    ]
    reads([str(figured) for figured in view.findings[0].figures], "restyle", "5.2", "4.3", "6.1", "4.9", "3.5", "6.3")


def test_a_finding_of_a_device_has_what_is_about_all_figures_first(view: NightView) -> None:
    reads(view.findings[3].sentence, "s23", "restyle", "sticker", "18.0", 15, 16, 2)


def test_a_finding_says_since_when_and_by_what(view: NightView) -> None:
    slower, _, hot, changed, _ = view.findings
    assert slower.since is not None
    assert (slower.since.night, slower.since.subject, slower.since.before) == (night_id(NIGHTS - 2), NEW, GOOD)
    assert hot.since is None
    assert changed.since is not None
    assert (changed.since.night, changed.since.subject) == (night_id(NIGHTS - 1), None)
    assert changed.since.environment == {"Android": ("15", "16")}


def test_what_a_device_did_is_not_blamed_on_files_that_came_in_the_same_night() -> None:
    told = ruling(RulingKind.ENVIRONMENT, "restyle", "s25", "the yardstick shifted", last_good=GOOD)
    (finding,) = night_view(replace(sample_night(), rulings=(told,)), series()).findings
    assert finding.since is None


def test_a_finding_names_the_command_that_comes_next_as_a_shell_takes_it(view: NightView, attacked: NightView) -> None:
    assert view.findings[0].next_step == "quadbench history restyle --devices s25"
    assert view.findings[1].next_step == "quadbench doctor --device s24"
    assert "--devices '<script>" in attacked.findings[0].next_step


def test_what_is_exact_is_told_in_all_its_digits(view: NightView) -> None:
    (figured,) = view.findings[-1].figures
    assert (figured.change, figured.interval) == ("16.7 % smaller", "exact")
    assert figured.value == "2,621,440 bytes"


def test_a_few_bytes_are_told_as_bytes() -> None:
    one = {"task": "sticker", "key": "lora_rom", "expected": 2_621_439.0}
    told = ruling(RulingKind.REGRESSION, "sticker", "a55", "it has more bytes", **one)
    (finding,) = night_view(replace(sample_night(), rulings=(told,)), series()).findings
    assert finding.figures[0].change == "1 byte more"


def test_a_ruling_on_a_measurement_that_is_not_in_the_series_is_told_without_figures() -> None:
    view = night_view(sample_night(), {})
    assert [finding.since for finding in view.findings] == [None] * 5
    assert view.findings[0].figures[0].value == ""
    assert "<svg" not in render_night(view, {})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0, 1e300])
def test_a_ratio_that_cannot_be_is_not_told(value: float) -> None:
    told = ruling(
        RulingKind.REGRESSION, "restyle", "s25", "slower", task="restyle", key="end_to_end", ratio=value, low=value, high=value
    )
    (finding,) = night_view(replace(sample_night(), rulings=(told,)), series()).findings
    reads(str(finding.figures[0]), "restyle")
    assert not {"nan", "inf"} & {
        *Page(render_night(night_view(replace(sample_night(), rulings=(told,)), series()), {})).text.split()
    }


def test_what_is_not_ruled_yet_counts_as_open_and_not_as_clean() -> None:
    begun = replace(sample_night(), ended_at=None, rulings=())
    view = night_view(begun, series())
    assert len(view.open) == 10
    assert view.clean == {}
    says(view.sentence, 10)


def test_a_finding_has_its_lines_on_the_terminal(view: NightView) -> None:
    reads(
        list(finding_lines(view.findings[0])),
        "restyle",
        "s25",
        "5.2",
        "4.3",
        "6.1",
        "4.9",
        "3.5",
        "6.3",
        "phones-2026-01-20",
        "e07be07be07b",
        "9c419c419c41",
        "ana@example.org",
        "quadbench history",
        "--devices",
    )


def test_devices_say_what_was_wrong_and_what_changed(view: NightView) -> None:
    cells = {row[0]: row[1:] for row in device_table(view).rows}
    assert cells["tabs11"][0] == "1 of 2"
    assert "throttled" in cells["tabs11"][1]
    assert cells["s23"][2] == "Android: 15 → 16"
    reads(cells["s24"][1], "s24")


def test_the_report_is_written_whole_into_the_night_s_folder_and_needs_no_script(view: NightView, tmp_path) -> None:
    path = write_night_report(view, {}, Layout(tmp_path))
    assert path == tmp_path / "nights" / night_id(NIGHTS - 1) / "night.html"
    page = Page(path.read_text())
    assert page.wrong == []
    assert page.open == []
    assert page.count("script") == page.count("link") == page.count("img") == 0
    assert view.sentence in page.text
    assert page.count("svg") == 6  # two of the slower case and of the changed phone, one of the hot phone and of the bytes


def test_a_chart_marks_the_night_and_shows_the_yardstick_below(view: NightView) -> None:
    html = render_night(view, {})
    pictures = [ET.fromstring(f"<svg{part.partition('</svg>')[0]}</svg>") for part in html.split("<svg")[1:]]
    texts = ["".join(node.itertext()) for node in pictures[0].iter("{http://www.w3.org/2000/svg}text")]
    assert {"5.2 % slower", "End to end, restyle: case / yardstick", "the yardstick itself, ms", "2026-01-21"} <= {*texts}
    assert "bundle e07be07be07b →" in texts
    changed = "".join(pictures[3].itertext())
    assert "18.0 % slower" in changed


def test_a_long_interval_does_not_flatten_a_chart_and_ends_at_its_edge(view: NightView) -> None:
    told = view.findings[0].figures[0]
    nights = list(series()["restyle", "adb:S25"])
    first = replace(nights[0], points=tuple(replace(one, high=1e6, low=1e-6) for one in nights[0].points))
    plain, wide = (night_chart(view.findings[0], told, one) for one in (nights, [first, *nights[1:]]))
    assert plain is not None
    assert wide is not None
    assert re.findall(r"<circle[^>]*>", wide) == re.findall(r"<circle[^>]*>", plain)
    heights = [float(y) for y in re.findall(r'y[12]="([\d.-]+)"', wide)]
    assert 0 <= min(heights) <= max(heights) <= 292


def test_a_ruling_on_all_figures_shows_the_time_for_an_image(view: NightView) -> None:
    told = ruling(RulingKind.ENVIRONMENT, "restyle", "s23", "the yardstick shifted")
    html = render_night(night_view(replace(sample_night(), rulings=(told,)), series()), {})
    says(html, "restyle")
    assert "18.0 % slower" in html


def test_a_night_of_hundreds_of_bad_cases_stays_short() -> None:
    told = [
        replace(one, case=f"{one.case}-{number}")
        for number in range(200)
        for one in sample_night().rulings
        if one.kind is RulingKind.REGRESSION
    ]
    nights = series()["restyle", "adb:S25"]
    every = {(one.case, one.device): nights for one in told}
    html = render_night(night_view(replace(sample_night(), rulings=tuple(told)), every), {})
    assert Page(html).count("svg") <= 12
    assert len(html) < 1_000_000  # with its data


def test_an_attack_in_any_text_is_only_text(attacked: NightView) -> None:
    html = render_night(attacked, {})
    page = Page(html)
    assert page.wrong == []
    assert page.count("script") == page.count("img") == 0
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not {"\x1b", "\x00", "\u202e", "\uffff"} & {*html}
    lines = [line for finding in attacked.findings for line in finding_lines(finding)]
    cells = [cell for row in device_table(attacked).rows for cell in row]
    assert not [text for text in (*lines, *cells) if {"\n", "\x1b"} & {*text}]
    assert len(attacked.sentence) < 3 * len(ATTACK)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("end_to_end", "10.0 % slower"),
        ("lora_rom", "10.0 % bigger"),
        ("peak_ram", "10.0 % bigger"),
        ("ssim", "10.0 % better"),
        ("st_lpips", "10.0 % worse"),
        ("something", "10.0 % more"),
    ],
)
def test_a_change_is_said_in_the_words_of_its_kind_of_figure(key: str, said: str) -> None:
    told = ruling(RulingKind.INCONCLUSIVE, "restyle", "s25", "so", task="restyle", key=key, ratio=1.1, low=1.05, high=1.2)
    (finding,) = night_view(replace(sample_night(), rulings=(told,)), series()).findings
    word = said.rpartition(" ")[2]
    assert (finding.figures[0].change, finding.figures[0].interval) == (said, f"5.0 to 20.0 % {word}")


def test_a_yardstick_is_marked_only_where_the_device_itself_changed(view: NightView) -> None:
    charts = [part.partition("</svg>")[0] for part in render_night(view, {}).split("<svg")[1:]]
    assert charts[0].count('class="told regression') == 2  # the case's last point and its words
    assert "as usual" in charts[0]
    assert "0.0 %" not in charts[0]
    assert 'class="told environment text"' in charts[3].rpartition("the yardstick itself")[2]


def test_a_row_says_the_cause_the_doubt_and_which_night_it_was_first_seen_in(view: NightView) -> None:
    row = {cells[0]: cells for cells in _rows(render_night(view, {}))}
    says(row["ENVIRONMENT"][3], 15, 16)
    says(row["ENVIRONMENT"][4], 15, 16)
    says(row["REGRESSION"][4], "phones-2026-01-20")


def test_charts_are_explained_before_the_first_of_them_with_what_mb_means(view: NightView) -> None:
    before = render_night(view, {}).partition("<svg")[0]
    says(before)
    assert "MB: 2^20 bytes." in before


def test_what_accepts_a_finding_accepts_it_on_its_device_alone(view: NightView) -> None:
    accepting = view.findings[0].accepting
    assert accepting is not None
    assert accepting.command == "quadbench history restyle --devices s25 --acknowledge REASON --until 30d"


def test_the_head_says_the_doubt_and_the_next_step_with_what_each_command_is_for(view: NightView) -> None:
    head = " ".join(Page(render_night(view, {})).text.partition("What changed, or is unknown")[0].split())
    says(head, "s25", "tabs11", "quadbench history", "restyle", "--devices", "--acknowledge")


def test_the_doubt_begins_with_the_devices_of_the_worst_finding_and_stays_short() -> None:
    worst = [one for one in sample_night().rulings if one.kind is RulingKind.INCONCLUSIVE]
    measured = [replace(one, caveats=(Caveat.FEW_SAMPLES,)) for one in sample_night().measurements if one.address == "a55"]
    night = replace(sample_night(), rulings=tuple(worst), measurements=(*measured, *sample_night().measurements))
    says(night_view(night, series()).doubt, "tabs11")
    says(night_view(night, series()).doubt, "a55")
    reads(night_view(clean_night(), {}).doubt, "tabs11")
    many = [
        replace(measured[0], device=f"adb:{n}", address=f"phone-{n}", caveats=(caveat,))
        for n, caveat in enumerate((Caveat.FEW_SAMPLES, Caveat.THROTTLED, Caveat.DEBUG_BUILD, Caveat.LOADED_HOST))
    ]
    alone = replace(clean_night(), measurements=tuple(many), rulings=())
    says(night_view(alone, {}).doubt, 1)


def test_a_hot_device_is_to_cool_before_it_is_launched_again(view: NightView) -> None:
    says(view.findings[2].next.purpose)
    assert view.findings[2].next_step == "quadbench doctor --device tabs11"
    hot = ruling(RulingKind.INCONCLUSIVE, "restyle", "tabs11", "hot", task="restyle", key="end_to_end", last_good=GOOD)
    nights = series()["restyle", "adb:TABS11"]
    new = {("restyle", "adb:TABS11"): [*nights[:-1], replace(nights[-1], subject=NEW)]}
    (finding,) = night_view(replace(sample_night(), rulings=(hot,)), new).findings
    reads(finding.next.purpose)
    assert finding.next_step.endswith(f"--devices tabs11 --bisect {night_id(NIGHTS - 2)} {night_id(NIGHTS - 1)}")


def test_the_last_good_value_stands_beside_that_of_the_night(view: NightView) -> None:
    reads(view.findings[0].figures[0].values, "3,144", "3,024", night_id(NIGHTS - 3))
    assert view.findings[1].figures[0].values == ""


def test_a_figure_that_was_ruled_on_has_its_change_and_its_own_cause_where_all_figures_stand_first(view: NightView) -> None:
    row = {cells[0]: cells for cells in _rows(render_night(view, {}))}["ENVIRONMENT"]
    says(row[2], "restyle", "6.7")
    says(row[3], "18.0", 15, 16, "restyle", "6.7")


def test_what_was_not_measured_does_not_look_like_a_regression(view: NightView) -> None:
    html = render_night(view, {})
    colours = dict(re.findall(r"\.ruling\.(\w+) \{ color: var\((--\w+)\)", html))
    assert colours["regression"] != colours["missing"]


def _rows(html: str) -> list[list[str]]:
    """Return the texts of the cells of the findings' rows."""
    body = html.partition('<table class="findings">')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    cells = ([re.sub(r"<[^>]+>", "", cell) for cell in re.split(r"</t[hd]>", row)] for row in body.split("<tr>")[1:])
    return [[" ".join(cell.split()) for cell in row] for row in cells]
