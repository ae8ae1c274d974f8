"""The state of a phone, in the formats of its vendors: what was measured is read, and everything else is unavailable."""

from pathlib import Path

import pytest

from quadbench.measure.gate import DeviceState, parse_state, state_texts

DUMPS = Path(__file__).parent / "data" / "dumpsys"


def state_of(vendor: str) -> DeviceState:
    return parse_state((DUMPS / f"{vendor}.txt").read_text())


def temperatures(state: DeviceState) -> dict[str, tuple[str, float]]:
    return {sensor.name: (sensor.kind, sensor.celsius) for sensor in state.thermal.temperatures}


def test_every_dump_is_known_to_a_test() -> None:
    assert {path.stem for path in DUMPS.glob("*.txt")} == {*VENDORS, "no_hal", "old", "set_by_hand"}


VENDORS = {
    "samsung": {"AP": ("cpu", 43.1), "PA": ("power-amplifier", 37.4), "BAT": ("battery", 31.9), "SKIN": ("skin", 37.8)},
    "samsung_sdhms": {
        "TYPE_CPU": ("cpu", 27.4),
        "TYPE_BATTERY": ("battery", 25.5),
        "TYPE_SKIN": ("skin", 26.2),
        "TYPE_USB_PORT": ("usb-port", 25.1),
    },
    "google": {
        "TPU": ("npu", 31.000002),
        "BIG": ("cpu", 33.000002),
        "MID": ("cpu", 32.000002),
        "LITTLE": ("cpu", 30.000002),
        "G3D": ("gpu", 29.000002),
        "VIRTUAL-SKIN": ("skin", 27.41324),
        "battery": ("battery", 26.2),
    },
    "qualcomm": {
        "CPU0": ("cpu", 46.4),
        "CPU7": ("cpu", 52.1),
        "GPU0": ("gpu", 44.9),
        "nsp0": ("npu", 47.7),
        "battery": ("battery", 31.7),
        "skin": ("skin", 38.6),
    },
    "mediatek": {
        "soc_max": ("tpu", 43.5),
        "mtktscpu": ("cpu", 42.1),
        "mtktsbattery": ("battery", 35.0),
        "mtktsAP": ("skin", 36.2),
        "mtktspa": ("modem", 38.0),
    },
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_temperatures_are_those_of_now_and_nothing_that_is_no_temperature(vendor: str) -> None:
    assert temperatures(state_of(vendor)) == VENDORS[vendor]


@pytest.mark.parametrize(
    ("vendor", "status", "percent", "battery_c", "powered_by", "screen"),
    [
        ("samsung", 1, 81.0, 31.9, ("USB",), "on"),
        ("samsung_sdhms", 0, 94.0, 25.5, ("USB",), "off"),
        ("google", 0, 77.0, 26.2, ("USB",), "off"),
        ("qualcomm", 2, 64.0, 31.7, ("AC",), "on"),
        ("mediatek", 0, 55.0, 35.0, ("USB",), None),
        ("old", None, 44.0, 28.0, ("USB",), "on"),
    ],
)
def test_status_battery_and_screen_are_read(
    vendor: str, status: int | None, percent: float, battery_c: float, powered_by: tuple[str, ...], screen: str | None
) -> None:
    state = state_of(vendor)
    assert state.thermal.status == status
    assert (state.battery.level_percent, state.battery.temperature_c, state.battery.powered_by) == (
        percent,
        battery_c,
        powered_by,
    )
    assert state.screen == screen


@pytest.mark.parametrize(
    ("vendor", "capped", "slowed"),
    [
        ("samsung", [], ["BATTERY 12"]),
        ("samsung_sdhms", [], ["TYPE_MODEM 1"]),
        ("google", ["policy7"], ["tpu_cooling 2"]),
        ("qualcomm", ["policy0"], ["thermal-cpufreq-0 3"]),
        ("mediatek", ["policy0"], []),
        ("no_hal", [], []),
    ],
)
def test_caps_of_clocks_and_what_is_cooled_are_read(vendor: str, capped: list[str], slowed: list[str]) -> None:
    state = state_of(vendor)
    assert [clock.policy for clock in state.clocks if clock.is_capped] == capped
    assert [f"{device.name} {device.level}" for device in state.thermal.cooling if device.level] == slowed


def test_the_kinds_of_older_samsung_phones_are_those_that_they_name() -> None:
    assert [device.kind for device in state_of("samsung_sdhms").thermal.cooling] == ["cpu", "gpu", "battery", "modem"]


def test_memory_and_uptime_are_read_everywhere() -> None:
    for path in DUMPS.glob("*.txt"):
        state = parse_state(path.read_text())
        assert (state.cores, state.load_1min is None, state.uptime_s is None) == (8, False, False)
        assert state.memory_total_bytes is not None
        assert state.memory_available_bytes is not None


def test_a_phone_whose_hal_does_not_answer_and_that_forbids_the_rest_is_unknown_not_cool() -> None:
    flat = state_texts(state_of("no_hal"), "before")
    keys = (
        "thermal_status",
        "battery_percent",
        "battery_temperature_c",
        "battery_powered_by",
        "screen",
        "cooling",
        "temperatures_c",
    )
    assert {flat[f"before.{key}"] for key in keys} == {"unavailable"}
    assert flat["before.clocks"] == "policy0 ?/?/? kHz"


def test_what_somebody_has_set_was_not_measured() -> None:
    state = state_of("set_by_hand")
    assert state.thermal.status is None
    assert temperatures(state) == {"skin": ("skin", 40.1)}
    assert (state.battery.level_percent, state.battery.temperature_c) == (None, None)


@pytest.mark.parametrize(("level", "tenths"), [("-1", "0"), ("101", "-1000"), ("x", "9999")])
def test_a_battery_that_reports_what_no_battery_has_is_unavailable(level: str, tenths: str) -> None:
    text = (
        (DUMPS / "samsung.txt")
        .read_text()
        .replace("level: 81", f"level: {level}")
        .replace("temperature: 319", f"temperature: {tenths}")
    )
    battery = parse_state(text).battery
    assert (battery.level_percent, battery.temperature_c) == (None, None)
