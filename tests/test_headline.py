"""The headline says the result over all devices, what is gained and what it costs, and on what it was measured."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.sentences import reads, says
from support.synthetic_run import ABBA, S25, TABS11, failed, make_run

from quadbench.artifacts import Caveat, DeviceFacts, RunRecord, Variant
from quadbench.report.formatting import pieces
from quadbench.report.headline import plain_text
from quadbench.report.view import ReportView, report_view
from quadbench.results.layout import Layout

Change = Callable[[RunRecord], RunRecord]
ONE_BLOCK = ABBA[1:]


def view_of(
    folder: Path,
    change: Change = lambda record: record,
    devices: tuple[DeviceFacts, ...] = (S25,),
    variants: tuple[Variant, ...] = ABBA[1:] * 6,
) -> ReportView:
    result = make_run(folder, devices=devices, variants=variants, items=1, iterations=3, change=change)
    return report_view(result, Layout(folder))


def told(
    folder: Path,
    change: Change = lambda record: record,
    devices: tuple[DeviceFacts, ...] = (S25,),
    variants: tuple[Variant, ...] = ABBA[1:] * 6,
) -> list[str]:
    return [plain_text([sentence]) for sentence in view_of(folder, change, devices, variants).headline]


def about(words: str, sentences: list[str]) -> str:
    """The one sentence that holds some words."""
    (sentence,) = (sentence for sentence in sentences if words in sentence)
    return sentence


def slower(record: RunRecord, factor: float, task: str | None = None) -> RunRecord:
    """The record with slower images on the shared graph, of one task or of all."""
    is_ours = record.variant is Variant.SHARED
    slow = [
        replace(s, value=s.value * factor) if is_ours and s.metric == "end_to_end_ns" and task in (None, s.task) else s
        for s in record.samples
    ]
    return replace(record, samples=tuple(slow))


def noisy(record: RunRecord, task: str | None = None) -> RunRecord:
    """The record of a launch on a machine that changes speed by a half from block to block, for one task or for all."""
    return slower(record, 1.5 if record.launch // 4 % 2 else 0.7, task)


def on_a_phone(record: RunRecord) -> RunRecord:
    return replace(record, caveats=())


def test_the_first_sentence_says_what_is_gained_and_what_it_costs(tmp_path: Path) -> None:
    first, *_ = told(tmp_path, lambda record: slower(record, 2.0))
    reads(first, "virtual:s25", 53)


def test_the_figures_stand_beside_what_they_are_measured_against(tmp_path: Path) -> None:
    view = view_of(tmp_path)
    figures = [figure for sentence in view.headline for figure in pieces(sentence)[1::2]]
    assert figures[:4] == ["53 %", "30.0 MB", "64.0 MB", "53 % less"]
    assert figures[-2:] == ["38.0 dB", "37.5 dB"]
    says(told(tmp_path), 3, "30.0", "64.0", 53)


def lacking(device: DeviceFacts, variant: Variant) -> Change:
    """A change after which no launch of a variant on a device gave anything."""
    return lambda record: failed(record, "killed") if (record.device, record.variant) == (device, variant) else record


def test_bytes_of_devices_with_the_same_files_are_those_of_one_that_has_both_sides(tmp_path: Path) -> None:
    says(told(tmp_path, lacking(S25, Variant.PER_GRAPH), (S25, TABS11)), 3, "30.0", "64.0", 53)


def test_from_how_many_tasks_on_it_pays_is_said_of_the_files_whose_bytes_are_told(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        own = replace(record, target="qnn") if record.device == TABS11 else record
        return lacking(TABS11, Variant.SHARED)(own)

    says(told(tmp_path, change, (S25, TABS11)), 3, "30.0", "64.0", 53)


def test_a_switch_says_what_the_other_side_loads_and_that_it_is_not_cold(tmp_path: Path) -> None:
    switch = about("witch to another task takes", told(tmp_path))
    says(switch, "19.0")
    assert "×" not in switch
    says(" ".join(told(tmp_path / "phone", on_a_phone)))


def test_what_an_image_costs_is_told_where_the_verdicts_say_so(tmp_path: Path) -> None:
    slow = told(tmp_path / "slow", lambda record: slower(record, 2.0))
    says(about("an image takes", slow))
    assert not any("is unknown whether" in sentence for sentence in slow)

    def slow_in_one_task(record: RunRecord) -> RunRecord:
        return slower(noisy(record, "draw"), 2.0, "restyle")

    one = told(tmp_path / "one", slow_in_one_task)
    says(one[0], "restyle")
    says(about("an image takes", one[2:]), "restyle")
    says(one[1], 2, 3)


def test_equal_sides_are_told_to_be_equal(tmp_path: Path) -> None:
    def equal(record: RunRecord) -> RunRecord:
        even = [replace(s, value=300e6) if s.metric == "end_to_end_ns" else s for s in record.samples]
        return replace(record, samples=tuple(even))

    sentences = told(tmp_path, equal)
    says(about("an image takes", sentences), 2)
    assert "time for an image" not in sentences[0]


def test_what_cannot_be_told_says_how_many_launches_would(tmp_path: Path) -> None:
    unknown = about("hether an image takes", told(tmp_path, variants=ONE_BLOCK))
    says(unknown, 2, 5)
    single = about("hether an image takes", told(tmp_path / "one", variants=(Variant.SHARED, Variant.PER_GRAPH)))
    says(single, 1, 12)
    hopeless = about("hether an image takes", told(tmp_path / "noisy", lambda record: noisy(record)))
    says(hopeless, 12, 80, 5)


def test_one_side_after_the_other_claims_no_time_and_no_memory(tmp_path: Path) -> None:
    order = (Variant.SHARED,) * 12 + (Variant.PER_GRAPH,) * 12
    view = view_of(tmp_path, lambda record: slower(record, 2.0), variants=order)
    first, unknown, *_ = (plain_text([sentence]) for sentence in view.headline)
    reads(first, "virtual:s25", 53)
    says(unknown)
    assert any("measure.order: abba" in gap for gap in view.gaps)


def test_the_headline_speaks_of_both_devices_and_names_the_worse_one(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return slower(record, 3.0 if record.device == TABS11 else 1.5)

    sentences = told(tmp_path, change, (S25, TABS11))
    says(sentences[0], "virtual:s25", "virtual:tabs11", 53)
    assert sum(sentence.count("30.0 MB") for sentence in sentences) == 1
    assert "on virtual:" in about("witch to another task takes", sentences)
    image = about("an image takes", sentences)
    assert "on virtual:tabs11)" in image
    assert " to 2" in image.split("more time")[0]  # from the better device's to the worse one's


def test_a_device_whose_figures_point_the_other_way_is_not_hidden(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return slower(record, 3.0 if record.device == TABS11 else 0.3)

    sentences = told(tmp_path, change, (S25, TABS11))
    says(sentences[0], "virtual:tabs11")
    image = about("an image takes", sentences)
    assert "% less to " in image
    says(image, 95)
    assert "; most for " in image


def test_a_device_without_figures_is_named(tmp_path: Path) -> None:
    view = view_of(tmp_path, lambda record: failed(record, "no room") if record.device == TABS11 else record, (S25, TABS11))
    says(plain_text(view.headline), "virtual:s25")
    says(view.gaps, "virtual:tabs11")


def test_what_one_device_alone_can_tell_is_said_of_that_device(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        if record.device != S25 or record.variant is not Variant.SHARED:
            return slower(record, 2.0)
        return replace(
            record, samples=tuple(replace(s, value=s.value * 2) if s.metric.endswith("_ns") else s for s in record.samples)
        )

    sentences = told(tmp_path, change, (S25, TABS11))
    says(sentences[0], "virtual:tabs11")
    says(about("an image takes", sentences), "virtual:tabs11")


def test_many_devices_are_counted(tmp_path: Path) -> None:
    devices = tuple(replace(S25, address=f"s25@{number}", serial=f"{number}") for number in range(5))
    says(told(tmp_path, devices=devices, variants=ONE_BLOCK)[0], 5)


@pytest.mark.parametrize("caveat", [Caveat.STILL_WARMING, Caveat.THROTTLED, Caveat.LOADED_HOST, Caveat.FEW_SAMPLES])
def test_what_to_do_about_a_doubt_stands_under_next_alone(tmp_path: Path, caveat: Caveat) -> None:
    view = view_of(tmp_path, lambda record: replace(record, caveats=(caveat,)), variants=ONE_BLOCK)
    assert [doubt.caveat for doubt in view.doubts] == [caveat]
    assert caveat.remedy not in caveat.doubt
    assert caveat.remedy in view.next_step or "In the recipe, set measure.launches" in view.next_step
