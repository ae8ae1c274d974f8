"""A launch's samples, kept column by column, are those that were measured, and launches of one plan share what they are of."""

from dataclasses import replace
from pathlib import Path

from support.long_run import RUN, store_long_run

from quadbench.artifacts import Sample
from quadbench.artifacts.launch_values import Samples
from quadbench.results.engine import database_of
from quadbench.results.layout import Layout
from quadbench.results.records import open_records

IMAGES = tuple(Sample(metric="end_to_end_ns", value=1e8 + n, task="restyle", iteration=n) for n in range(3))


def reading(value: float) -> Sample:
    return Sample(metric="rss_bytes", value=value)


def test_samples_stay_in_the_order_measured_wherever_memory_was_read() -> None:
    measured = (reading(5.0), IMAGES[0], reading(6.0), reading(7.0), *IMAGES[1:], reading(8.0))
    samples = Samples.from_samples(measured)
    assert samples == measured
    assert samples[3] == measured[3]
    assert len(samples) == len(measured)
    assert tuple(samples.values) == tuple(image.value for image in IMAGES)
    assert Samples.from_samples(samples) is samples


def test_samples_that_differ_in_a_value_or_in_what_it_is_of_are_not_equal() -> None:
    samples = Samples.from_samples(IMAGES)
    assert samples != (*IMAGES[:2], replace(IMAGES[2], value=1.0))
    assert samples != (*IMAGES[:2], replace(IMAGES[2], labels={"a": "b"}))
    assert samples != IMAGES[:2]


def test_launches_of_one_plan_share_the_kinds_of_their_values_though_memory_was_read_at_other_times(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    store_long_run(layout, devices=1, tasks=1, launches=2)
    with open_records(database_of(layout)) as records:
        one, other, *_ = (record for record in records.run_records(RUN) if record.variant.has_unet_per_task)
        for number, launch in enumerate((one, other)):
            samples = [*launch.samples]
            samples.insert(number + 1, reading(1e6))
            records.store(replace(launch, record_id=f"again-{number}", run_id="again", samples=tuple(samples)))
        first, second = records.run_records("again")
    assert first.samples[1] == reading(1e6)
    assert first.columns.kinds is second.columns.kinds
    assert first.columns.values == one.columns.values
