"""A device that alarms where nothing changed, or whose yardstick drifts, is known for it and put on probation."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa
from support.night_series import FIRST, NEW, around, night
from support.sentences import reads

from quadbench.artifacts.night_record import Measurement, Ruling, RulingKind
from quadbench.devices.lab.health import Health
from quadbench.devices.lab.inventory import READY, Inventory, Sighting
from quadbench.nightly.night_report import alarm_rates, mark_doubtful
from quadbench.nightly.verdicts import missing_ruling
from quadbench.report.night import AlarmRate

STEADY = [night(number, 1.5, yardstick=1 + 0.002 * (number % 3)) for number in range(30)]


def alarms(nights: Sequence[Measurement]) -> list[Ruling]:
    rulings = [missing_ruling(one.night, one.case, one.device, one.address, cause="-", owner=None, now=FIRST) for one in nights]
    return [replace(ruling, kind=RulingKind.ENVIRONMENT) for ruling in rulings]


def known(nights: Sequence[Measurement], rulings: Sequence[Ruling] = ()) -> AlarmRate:
    (device,) = alarm_rates(nights, rulings)
    return device


def test_alarms_are_counted_among_the_nights_in_which_nothing_changed() -> None:
    device = known(STEADY, alarms(STEADY[5:8]))
    assert (device.alarms, device.tries) == (3, 29)
    assert device.low is not None
    assert device.low < 3 / 29 < (device.high or 0)
    assert device.doubt is None


def test_a_night_with_other_files_or_surroundings_is_no_try() -> None:
    other = replace(night(30, 1.5), subject=NEW)
    updated = around(night(31, 1.5, subject=NEW), Android="17")
    device = known([*STEADY, other, updated], alarms([other, updated]))
    assert (device.alarms, device.tries) == (0, 29)


def test_a_device_that_alarms_too_often_is_in_doubt() -> None:
    reads(known(STEADY, alarms(STEADY[5:12])).doubt, 7, 29)


def test_nights_count_and_not_the_cases_that_one_night_befalls_together() -> None:
    cases = [replace(one, case=f"case-{number}") for number in range(5) for one in STEADY]
    befallen = [one for one in cases if one.night in {night.night for night in STEADY[5:8]}]
    device = known(cases, alarms(befallen))
    assert (device.alarms, device.tries, device.doubt) == (15, 145, None)
    assert device.low == known(STEADY, alarms(STEADY[5:8])).low


def test_a_yardstick_that_drifts_is_in_doubt() -> None:
    drifting = [night(number, 1.5, yardstick=1.004**number) for number in range(30)]
    reads(known(drifting).doubt, "9.2")


def test_a_device_without_a_try_has_no_rate() -> None:
    device = known(STEADY[:1])
    assert (device.tries, device.low, device.high, device.doubt) == (0, None, None, None)


def test_a_phone_in_doubt_is_put_on_probation_and_what_is_no_phone_is_left_alone(engine: sa.Engine) -> None:
    inventory = Inventory(engine)
    words = dict.fromkeys(("address", "serial", "model", "host"), "-")
    empty = dict.fromkeys(("profile", "chip", "android_release", "abi"))
    inventory.note_seen([Sighting(device="adb:R5CX", state=READY, **words, **empty)])
    virtual = [replace(one, device="virtual:s25") for one in STEADY]
    doubtful = alarm_rates([*STEADY, *virtual], alarms([*STEADY[5:12], *virtual[5:12]]))
    assert [one.doubt is not None for one in doubtful] == [True, True]
    assert list(mark_doubtful(inventory, doubtful)) == ["adb:R5CX"]
    (phone,) = inventory.phones()
    assert phone.condition.health is Health.PROBATION
    assert phone.last_seen - FIRST > timedelta()
