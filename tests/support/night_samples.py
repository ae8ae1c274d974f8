"""Sample nights: nights of three weeks on six phones, of which the last has something of every kind, and one of attacks."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import sin

import sqlalchemy as sa

from quadbench.artifacts import Caveat
from quadbench.artifacts.night_record import Measurement, Night, Point, Ruling, RulingKind, Subject
from quadbench.report.night import Series
from quadbench.results.engine import begin_write, upsert
from quadbench.results.nights import NightStore
from quadbench.results.schema import NightRow

NIGHTS = 21
FIRST = datetime(2026, 1, 1, 2, tzinfo=UTC)
GOOD, NEW = Subject(bundle="9c41" * 16), Subject(bundle="e07b" * 16)
PHONES = ("s25", "tabs11", "s24", "s23", "a55")
OWNERS = {"restyle": "ana@example.org", "sticker": None}
ATTACK = (
    "<script>alert(1)</script>\x1b[2J\r\n::error::x %0A ##[add-path]/tmp ]]> \x00\uffff\u202e <!channel> @here <@U1> "
    "[a](http://evil) ![](http://evil/x.png) www.evil.example :tada: ~~x~~ $x$ a@evil.example | `rm` $(id) & \" ' \n"
    "| a | b |\n# title {{ 7*7 }} " + "long " * 300
)


def night_id(number: int) -> str:
    return f"phones-{FIRST + timedelta(days=number):%Y-%m-%d}"


def measurement(case: str, phone: str, number: int) -> Measurement:
    """One of a case on a phone: restyle runs something new on s25 in the last two nights, and s23 slows down in the last."""
    last = NIGHTS - 1
    is_new = case == "restyle" and phone == "s25" and number >= last - 1
    noise = 1 + 0.006 * sin(7.1 * number + PHONES.index(phone))
    speed = (1.18 if phone == "s23" and number == last else 1.0) * (1 + 0.01 * sin(3.3 * number))
    yardstick = 2.0e9 * speed
    ratio = 1.5 * noise * (1.052 if is_new else 1.0)
    rom = 3_145_728.0 - (524_288 if case == "sticker" and phone == "a55" and number == last else 0)
    return Measurement(
        night=night_id(number),
        case=case,
        device=f"adb:{phone.upper()}",
        address=phone,
        measured_at=FIRST + timedelta(days=number, minutes=PHONES.index(phone)),
        subject=NEW if is_new or rom < 3_000_000 else GOOD,
        yardstick="d" * 64,
        environment={"Android": "16" if phone == "s23" and number == last else "15", "build": "BP2A.250605"},
        comparison=f"20260101-0200{number:02d}-aaaa",
        runs=(f"20260101-0200{number:02d}-bbbb", f"20260101-0200{number:02d}-cccc"),
        caveats=(Caveat.THROTTLED,) if phone == "tabs11" and number == last else (),
        points=(
            Point(
                task=case,
                key="end_to_end",
                value=ratio * yardstick,
                yardstick=yardstick,
                ratio=ratio,
                low=ratio * 0.99,
                high=ratio * 1.01,
            ),
            Point(task=case, key="unet_step", value=ratio * 1e8, yardstick=1e8, ratio=ratio, low=ratio * 0.98, high=ratio * 1.02),
            Point(task=case, key="lora_rom", value=rom),
        ),
    )


def series() -> Series:
    """The cases' measurements of all nights; s24 was not there in the last one."""
    return {
        (case, f"adb:{phone.upper()}"): [measurement(case, phone, number) for number in range(NIGHTS - (phone == "s24"))]
        for case in OWNERS
        for phone in PHONES
    }


def ruling(kind: RulingKind, case: str, phone: str, cause: str, **more: object) -> Ruling:
    told = Ruling(
        night=night_id(NIGHTS - 1),
        case=case,
        device=f"adb:{phone.upper()}",
        address=phone,
        told_at=FIRST + timedelta(days=NIGHTS - 1, hours=2),
        kind=kind,
        cause=cause,
        detector=1,
        owner=OWNERS[case],
    )
    return replace(told, **more)


def rulings() -> Iterator[Ruling]:
    slower = {"task": "restyle", "last_good": GOOD, "expected": 1.5, "comparison": "20260121-030000-dddd"}
    cause = "it is {} than with the last good files, launched in turn"
    first, second = cause.format("5.2 % slower (4.3 to 6.1 % slower)"), cause.format("4.9 % slower (3.5 to 6.3 % slower)")
    yield ruling(RulingKind.REGRESSION, "restyle", "s25", second, key="unet_step", ratio=1.049, low=1.035, high=1.063, **slower)
    yield ruling(RulingKind.REGRESSION, "restyle", "s25", first, key="end_to_end", ratio=1.052, low=1.043, high=1.061, **slower)
    hot = "the device was hot, 46.5 °C, and its clocks were capped in 4 of 6 launches"
    yield ruling(RulingKind.INCONCLUSIVE, "restyle", "tabs11", hot, task="restyle", key="end_to_end", expected=1.5)
    for case in OWNERS:
        yield ruling(RulingKind.MISSING, case, "s24", "no device answers to 's24': it was not attached all night")
        shift = "the yardstick, with unchanged files, differs from its usual level on this device: End to end 18.0 % slower"
        yield ruling(RulingKind.ENVIRONMENT, case, "s23", f"{shift} (Android was 15 and is 16)")
        slow = "it is 6.7 % slower than usual: 1,600 ms instead of 1,500 ms; its files are the same (Android was 15 and is 16)"
        load = {"task": case, "key": "session_load", "value": 1.6e9, "expected": 1.5e9}
        yield ruling(RulingKind.ENVIRONMENT, case, "s23", slow, **load)
    smaller = {"task": "sticker", "key": "lora_rom", "expected": 3_145_728.0, "value": 2_621_440.0, "last_good": GOOD}
    yield ruling(RulingKind.IMPROVEMENT, "sticker", "a55", "it has fewer bytes, and bytes are exact", **smaller)
    for case, phone in (("sticker", "s25"), ("sticker", "tabs11"), ("restyle", "a55")):
        yield ruling(RulingKind.CLEAN, case, phone, "as usual")


def sample_night() -> Night:
    """The last night, with a slower case, a hot phone, one that is gone, one that changed, and fewer bytes."""
    last = NIGHTS - 1
    return Night(
        night_id=night_id(last),
        name="phones",
        began_at=FIRST + timedelta(days=last),
        ended_at=FIRST + timedelta(days=last, hours=2, minutes=41),
        version="0.1.0",
        planned=tuple((case, phone) for case in OWNERS for phone in PHONES),
        measurements=tuple(measurement(case, phone, last) for case in OWNERS for phone in PHONES if phone != "s24"),
        rulings=tuple(rulings()),
    )


def clean_night() -> Night:
    night = sample_night()
    return replace(night, rulings=tuple(replace(one, kind=RulingKind.CLEAN) for one in night.rulings))


def attacked_night() -> tuple[Night, Series]:
    """The same with an attack in every text that is not a name."""
    night = sample_night()
    environment = {ATTACK: ATTACK}
    measured = tuple(replace(one, address=ATTACK, environment=environment) for one in night.measurements)
    told = tuple(replace(one, address=ATTACK, cause=ATTACK, owner=ATTACK, comparison=ATTACK) for one in night.rulings)
    tasks = tuple(replace(one, task=ATTACK, key=ATTACK) if one.key == "end_to_end" else one for one in told)
    attacked = replace(night, measurements=measured, rulings=tasks)
    by_place = {(one.case, one.device): one for one in measured}
    return attacked, {place: [*nights[:-1], by_place.get(place, nights[-1])] for place, nights in series().items()}


def keep_night(engine: sa.Engine, night: Night) -> None:
    """Store a night as it is, with its own times."""
    row = {name: getattr(night, name) for name in ("name", "began_at", "ended_at", "version", "planned")}
    with begin_write(engine) as connection:
        connection.execute(upsert(connection, NightRow).values(id=night.night_id, **row).on_conflict_do_nothing())
    nights = NightStore(engine)
    for measured in night.measurements:
        nights.store(measured)
    nights.add(night.rulings)
