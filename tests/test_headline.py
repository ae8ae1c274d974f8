"""The headline says the result over all devices, what is gained and what it costs, and on what it was measured."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.synthetic_run import S25, TABS11, failed, make_run

from quadbench.artifacts import Caveat, DeviceFacts, RunRecord, Variant
from quadbench.report import report_view
from quadbench.report.headline import in_words
from quadbench.report.view import ReportView
from quadbench.results.layout import Layout

Change = Callable[[RunRecord], RunRecord]


def view_of(folder: Path, change: Change = lambda record: record, devices: tuple[DeviceFacts, ...] = (S25,)) -> ReportView:
    return report_view(make_run(folder, devices=devices, change=change), Layout(folder))


def told(folder: Path, change: Change = lambda record: record, devices: tuple[DeviceFacts, ...] = (S25,)) -> list[str]:
    return [in_words([sentence]) for sentence in view_of(folder, change, devices).headline]


def slower(record: RunRecord, factor: float, task: str | None = None) -> RunRecord:
    """The record with slower images on the shared graph, of one task or of all."""
    is_ours = record.variant is Variant.SHARED
    slow = [
        replace(s, value=s.value * factor) if is_ours and s.metric == "end_to_end_ns" and task in (None, s.task) else s
        for s in record.samples
    ]
    return replace(record, samples=tuple(slow))


def on_a_phone(record: RunRecord) -> RunRecord:
    return replace(record, caveats=())


def test_the_first_sentence_says_what_is_gained_and_what_it_costs_without_a_figure(tmp_path: Path) -> None:
    first, *_ = told(tmp_path, lambda record: slower(record, 2.0))
    assert first == (
        "On virtual:s25 one base with LoRAs takes fewer bytes, less time to switch tasks and less memory than one graph per "
        "task, but more time for an image."
    )


def test_the_figures_stand_beside_what_they_are_measured_against(tmp_path: Path) -> None:
    view = view_of(tmp_path)
    figures = [phrase.text for sentence in view.headline for phrase in sentence if phrase.is_figure]
    assert figures[:3] == ["30.0 MB", "64.0 MB", "53 % less"]
    assert figures[-2:] == ["38.5 dB", "38.0 dB"]
    assert told(tmp_path)[1] == "The files of 3 tasks take 30.0 MB instead of 64.0 MB (53 % less; a single task would take more)."


def lacking(device: DeviceFacts, variant: Variant) -> Change:
    """A change after which no launch of a variant on a device gave anything."""
    return lambda record: failed(record, "killed") if (record.device, record.variant) == (device, variant) else record


def test_bytes_of_devices_with_the_same_files_are_those_of_one_that_has_both_sides(tmp_path: Path) -> None:
    told_bytes = told(tmp_path, lacking(S25, Variant.PER_GRAPH), (S25, TABS11))[1]
    assert told_bytes == "The files of 3 tasks take 30.0 MB instead of 64.0 MB (53 % less; a single task would take more)."


def test_from_how_many_tasks_on_it_pays_is_said_of_the_files_whose_bytes_are_told(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        own = replace(record, target="qnn") if record.device == TABS11 else record
        return lacking(TABS11, Variant.SHARED)(own)

    told_bytes = told(tmp_path, change, (S25, TABS11))[1]
    assert told_bytes == "The files of 3 tasks take 30.0 MB instead of 64.0 MB (53 % less; a single task would take more)."


def test_a_switch_says_what_the_other_side_loads_and_that_it_is_not_cold(tmp_path: Path) -> None:
    switch = told(tmp_path)[2]
    assert switch.startswith("On this machine's CPU, a switch to another task takes at most 0.02")
    assert switch.endswith(" ms, the load of a graph of 19.0 MB that had been read before.")
    assert "×" not in switch
    assert told(tmp_path / "phone", on_a_phone)[2].startswith("A switch to another task takes")


def test_what_an_image_costs_is_told_as_far_as_the_run_can_tell(tmp_path: Path) -> None:
    def noisy(record: RunRecord) -> RunRecord:
        return slower(record, 2.0 if record.launch == 1 else 0.5)

    assert "more time" in told(tmp_path / "slow", lambda record: slower(record, 2.0))[3]
    assert "an image takes as much time as far as this run can tell" in told(tmp_path / "noisy", noisy)[3]

    def slow_in_one_task(record: RunRecord) -> RunRecord:
        return slower(slower(record, 2.0, "restyle"), 2.0 if record.launch == 1 else 0.5, "draw")

    assert "an image takes up to 10" in told(tmp_path / "one", slow_in_one_task)[3]


def test_the_headline_speaks_of_both_devices_and_names_the_worse_one(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return slower(record, 3.0 if record.device == TABS11 else 1.5)

    first, size, switch, image, _ = told(tmp_path, change, (S25, TABS11))
    assert first.startswith("On both devices, virtual:s25 and virtual:tabs11, one base with LoRAs takes fewer bytes")
    assert size.count("30.0 MB") == 1
    assert "on virtual:" in switch
    assert "on virtual:tabs11)" in image
    assert " to 2" in image.split("more time")[0]  # from the better device's to the worse one's


def test_a_device_whose_figures_point_the_other_way_is_not_hidden(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        return slower(record, 3.0 if record.device == TABS11 else 0.3)

    first, _, _, image, _ = told(tmp_path, change, (S25, TABS11))
    assert first.endswith("but more time for an image on virtual:tabs11.")
    assert "% less to " in image
    assert "% more time (most for " in image


def test_a_device_without_figures_is_named(tmp_path: Path) -> None:
    view = view_of(tmp_path, lambda record: failed(record, "no room") if record.device == TABS11 else record, (S25, TABS11))
    assert in_words(view.headline).startswith("On virtual:s25 one base")
    assert "virtual:tabs11 has no figures: no launch there was OK." in view.gaps


def test_what_one_device_alone_can_tell_is_said_of_that_device(tmp_path: Path) -> None:
    def change(record: RunRecord) -> RunRecord:
        if record.device != S25 or record.variant is not Variant.SHARED:
            return slower(record, 2.0)
        return replace(
            record, samples=tuple(replace(s, value=s.value * 2) if s.metric.endswith("_ns") else s for s in record.samples)
        )

    first, _, _, image, _ = told(tmp_path, change, (S25, TABS11))
    assert first.endswith("but more time for an image on virtual:tabs11.")
    assert "more time on virtual:tabs11, which alone can tell" in image


def test_many_devices_are_counted(tmp_path: Path) -> None:
    devices = tuple(replace(S25, address=f"s25@{number}", serial=f"{number}") for number in range(5))
    assert told(tmp_path, devices=devices)[0].startswith("On 5 devices one base with LoRAs")


@pytest.mark.parametrize("caveat", [Caveat.STILL_WARMING, Caveat.THROTTLED, Caveat.LOADED_HOST, Caveat.FEW_SAMPLES])
def test_what_to_do_about_a_doubt_stands_under_next_alone(tmp_path: Path, caveat: Caveat) -> None:
    view = view_of(tmp_path, lambda record: replace(record, caveats=(caveat,)))
    assert [doubt.caveat for doubt in view.doubts] == [caveat]
    assert caveat.cure not in caveat.doubt
    assert caveat.cure in view.next_step or "In the recipe, set measure.launches" in view.next_step
