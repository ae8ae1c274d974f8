"""Nights are kept in either database as they were given, and what is ruled is only added to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from support.night_samples import keep_night
from support.sentences import raising

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Acknowledgement, Measurement, Point, Ruling, RulingKind, Subject
from quadbench.errors import UnknownNameError
from quadbench.results.nights import NightStore

NIGHT = "phones-2026-01-02"
AT = datetime(2026, 1, 2, 3, tzinfo=UTC)
TIME = Point(task="restyle", key="end_to_end", value=3e9, yardstick=2e9, ratio=1.5, low=1.4, high=1.6)
BYTES = Point(task="restyle", key="lora_rom", value=3e6, yardstick=2e6)
MEASUREMENT = Measurement(
    night=NIGHT,
    case="restyle",
    device="adb:R5CX",
    address="s25",
    measured_at=AT,
    subject=Subject(bundle="b" * 64, kit="c" * 64),
    yardstick="d" * 64,
    environment={"Android": "16"},
    comparison="20260102-030000-aaaa",
    runs=("20260102-030000-bbbb", "20260102-030000-cccc"),
    caveats=(Caveat.FEW_SAMPLES,),
    points=(TIME, BYTES),
)
RULING = Ruling(
    night=NIGHT,
    case="restyle",
    device="adb:R5CX",
    address="s25",
    told_at=AT,
    kind=RulingKind.REGRESSION,
    cause="it is 5.0 % slower",
    detector=1,
    task="restyle",
    key="end_to_end",
    last_good=Subject(bundle="e" * 64),
)


@pytest.fixture
def nights(engine: sa.Engine) -> NightStore:
    nights = NightStore(engine)
    nights.begin(NIGHT, "phones", "0.1", [("restyle", "s25"), ("restyle", "tabs11")])
    return nights


def test_a_night_is_read_as_it_was_kept(nights: NightStore) -> None:
    assert nights.store(MEASUREMENT)
    nights.add([RULING])
    night = nights.night(NIGHT)
    assert (night.planned, night.measurements, night.rulings) == (
        (("restyle", "s25"), ("restyle", "tabs11")),
        (MEASUREMENT,),
        (RULING,),
    )
    assert night.ended_at is None
    nights.end(NIGHT)
    assert nights.night(NIGHT).ended_at is not None


def test_a_case_is_measured_once_on_a_device_in_a_night(nights: NightStore) -> None:
    nights.store(MEASUREMENT)
    assert not nights.store(replace(MEASUREMENT, comparison="another"))
    assert nights.store(replace(MEASUREMENT, device="adb:other"))
    assert nights.cases() == [("restyle", "adb:R5CX"), ("restyle", "adb:other")]
    assert nights.series("restyle", "adb:R5CX") == [MEASUREMENT]


def test_a_series_can_be_read_in_part(nights: NightStore) -> None:
    for number in range(5):
        night_id = f"phones-2026-01-{number + 3:02d}"
        nights.begin(night_id, "phones", "0.1", [])
        nights.store(replace(MEASUREMENT, night=night_id, measured_at=AT + timedelta(days=number)))
    whole = nights.series("restyle", "adb:R5CX")
    assert nights.series("restyle", "adb:R5CX", latest=2) == whole[-2:]
    (latest,) = nights.series("restyle", latest=1, key="lora_rom")
    assert latest == replace(whole[-1], points=(BYTES,))


def test_a_series_can_end_with_a_night(nights: NightStore, engine: sa.Engine) -> None:
    for number in range(5):
        began = AT + timedelta(days=number)
        night = replace(nights.night(NIGHT), night_id=f"night-{number}", began_at=began, measurements=(), rulings=())
        measured = replace(MEASUREMENT, night=night.night_id, measured_at=began + timedelta(minutes=5))
        keep_night(engine, replace(night, measurements=() if number == 3 else (measured,)))

    def until(number: int) -> list[str]:
        night = nights.night(f"night-{number}")
        return [one.night for one in nights.series("restyle", "adb:R5CX", latest=2, until=night)]

    assert until(2) == ["night-1", "night-2"]
    assert until(3) == ["night-1", "night-2"]  # it has no measurement of its own


def test_of_rulings_about_the_same_figure_the_last_one_stands(nights: NightStore, engine: sa.Engine) -> None:
    nights.add([RULING])
    later = replace(RULING, kind=RulingKind.CLEAN, cause="acknowledged", told_at=AT + timedelta(days=1))
    nights.add([later])
    assert nights.rulings(NIGHT) == (later,) == nights.rulings_of("restyle", "adb:R5CX")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM night_rulings")) == 2


def test_a_night_that_is_begun_again_goes_on(nights: NightStore) -> None:
    nights.store(MEASUREMENT)
    nights.end(NIGHT)
    night = nights.begin(NIGHT, "phones", "0.2", [("restyle", "s25")])
    assert (night.ended_at, night.version, night.planned) == (None, "0.2", (("restyle", "s25"),))
    assert night.measurements == (MEASUREMENT,)


def test_acknowledgements_are_kept(nights: NightStore) -> None:
    word = Acknowledgement(
        case="restyle", night=NIGHT, reason="more steps", owner="a@b", made_at=AT, since=AT, until=AT, key="end_to_end"
    )
    nights.acknowledge(word)
    assert nights.acknowledgements() == (word,) == nights.acknowledgements("restyle")
    assert nights.acknowledgements("other") == ()
    assert nights.acknowledgements()[0].since == AT
    nights.store(replace(MEASUREMENT, measured_at=AT - timedelta(hours=1)))
    assert nights.acknowledgements()[0].since == AT - timedelta(hours=1)


def test_what_nights_need_is_known(nights: NightStore) -> None:
    nights.store(MEASUREMENT)
    assert nights.referenced() == {"b" * 64, "c" * 64, "d" * 64, *MEASUREMENT.runs}


def test_a_night_that_is_not_there_is_named_with_those_that_are(nights: NightStore) -> None:
    with raising(UnknownNameError, "phones-2026-01-03", NIGHT):
        nights.night("phones-2026-01-03")
