"""How a run went: images by launch with the temperature, memory over time, what bytes are of, and how far pictures are apart."""

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.report_page import Page
from support.sentences import says
from support.synthetic_run import ABBA, MB, S25, make_run

from quadbench.artifacts import Caveat, RunRecord, RunResult, Sample, Variant
from quadbench.report.html import render_html
from quadbench.report.provenance import MAX_LISTED, launch_list
from quadbench.report.run_charts import memory_chart, memory_of, strip_chart, strips_of
from quadbench.report.scores import difference_png
from quadbench.results.layout import Layout

SVG = "{http://www.w3.org/2000/svg}"


def warm(record: RunRecord) -> RunRecord:
    """The record of a device that was warmer at each launch, and whose memory was read before and after each image."""

    def read() -> Iterator[Sample]:
        for sample in record.samples:
            yield sample
            if sample.metric == "end_to_end_ns":
                yield Sample(metric="rss_bytes", value=(100.0 + record.launch) * MB, task=sample.task)

    state = record.state | {"before.battery_temperature_c": f"{30 + record.launch}"}
    return replace(record, state=state, samples=tuple(read()))


@pytest.fixture
def run(tmp_path: Path) -> RunResult:
    return make_run(tmp_path, items=1, change=warm)


def test_every_image_stands_in_its_launch_with_the_temperature_before_it(run: RunResult) -> None:
    restyle, *_ = strips_of(run, S25)
    assert [(strip.variant, strip.temperature_c) for strip in restyle.strips] == [
        (Variant.SHARED, 31.0), (Variant.PER_GRAPH, 32.0), (Variant.PER_GRAPH, 33.0), (Variant.SHARED, 34.0)
    ]  # fmt: skip
    picture = ElementTree.fromstring(strip_chart(restyle))
    assert len(picture.findall(f"{SVG}circle[@class='shared image']")) == 2 * 11
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    assert {"34 °C", "31 °C", "restyle: an image, ms"} <= set(texts)


def test_a_device_that_tells_no_temperature_has_none_drawn(tmp_path: Path) -> None:
    result = make_run(tmp_path, items=1)
    assert "°C" not in strip_chart(strips_of(result, S25)[0])


@pytest.mark.parametrize("told", ["nan", "inf", "warm"])
def test_a_temperature_that_is_none_is_not_drawn(told: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, change=lambda record: replace(record, state={"before.battery_temperature_c": told}))
    assert {strip.temperature_c for strip in strips_of(run, S25)[0].strips} == {None}


def test_of_very_many_launches_in_turn_some_of_each_variant_are_listed() -> None:
    order = (Variant.SHARED, Variant.PER_GRAPH, Variant.RESIDENT, Variant.MERGED_AT_LOAD)
    launches = [SimpleNamespace(is_ok=True, position=n, variant=order[n % 4]) for n in range(4 * MAX_LISTED)]
    assert {launch.variant for launch in launch_list(launches).launches} == set(order)


def test_a_bundle_without_tasks_has_a_report_without_strips(run: RunResult, tmp_path: Path) -> None:
    bare = replace(run, stored=replace(run.stored, artifact=replace(run.bundle, tasks=())))
    assert strips_of(bare, S25) == ()
    assert S25.title in Page(render_html(bare, Layout(tmp_path))).text


def test_memory_is_drawn_over_the_time_that_went_by_between_readings(run: RunResult) -> None:
    shared, own = memory_of(run, S25)
    assert (shared.variant, own.variant) == (Variant.SHARED, Variant.PER_GRAPH)
    assert [size for _, size in shared.readings] == [101.0 * MB] * len(shared.readings)
    moments = [moment for moment, _ in shared.readings]
    assert moments == sorted(moments)
    record = next(record for record in run.records if record.variant is Variant.SHARED)
    images = sum(sample.value for sample in record.samples if sample.metric == "end_to_end_ns")
    assert moments[-1] == pytest.approx(images, rel=0.2)
    picture = ElementTree.fromstring(memory_chart([shared, own], "s25"))
    assert len(picture.findall(f"{SVG}polyline")) == 2


def test_times_and_memory_of_an_emulator_are_not_drawn(tmp_path: Path) -> None:
    result = make_run(tmp_path, items=1, change=lambda record: replace(warm(record), caveats=(Caveat.EMULATED_CPU,)))
    assert strips_of(result, S25) == ()
    assert memory_of(result, S25) == ()


def test_of_very_many_launches_and_readings_a_picture_has_as_many_as_it_has_room_for(tmp_path: Path) -> None:
    result = make_run(tmp_path, items=1, iterations=1, change=warm)
    base = [record for record in result.records if record.variant in ABBA[1:]]
    many = tuple(
        replace(record, record_id=f"{number}-{record.record_id}", samples=record.samples * (50 if number == 0 else 1))
        for number in range(150)
        for record in base
    )
    crowd = replace(result, records=many)
    restyle, *_ = strips_of(crowd, S25)
    assert (len(restyle.strips), restyle.step) == (120, 5)  # a step of 3 or 4 would leave variants out
    assert len(strip_chart(restyle)) < 100_000
    assert all(len(course.readings) <= 300 for course in memory_of(crowd, S25))


def _picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_a_difference_is_amplified_and_of_a_large_picture_the_largest_of_each_patch(tmp_path: Path) -> None:
    black, other = np.zeros((512, 512, 3)), np.zeros((512, 512, 3))
    other[7, 9] = (2, 40, 0)
    content = difference_png(_picture(tmp_path / "a.png", black), _picture(tmp_path / "b.png", other))
    shown = np.asarray(Image.open(io.BytesIO(content)))
    assert shown.shape == (128, 128, 3)
    assert shown[1, 2].tolist() == [16, 255, 0]
    assert shown.sum() == 16 + 255


def test_pictures_of_two_sizes_have_no_difference_and_say_so(tmp_path: Path, run: RunResult) -> None:
    reference = run.stored.folder / "reference/restyle/000.png"
    Image.new("RGB", (8, 8)).save(reference)
    page = Page(render_html(run, Layout(tmp_path)))
    says(page.text, "000.png")
    assert page.wrong == []


def test_the_report_has_each_of_them_as_a_picture_without_script(tmp_path: Path, run: RunResult) -> None:
    page = Page(render_html(run, Layout(tmp_path)))
    assert page.wrong == []
    says(page.text, 8)
    assert page.count("script") == 0
