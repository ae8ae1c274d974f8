"""What phones say of themselves: properties, the list of attached devices, temperatures, battery."""

from pathlib import Path

import pytest

from quadbench.devices.android_reports import parse_battery, parse_device_list, parse_getprop, parse_thermal
from quadbench.target.profile import load_profile

GETPROP = Path(__file__).parent / "data" / "getprop"


def fold7() -> dict[str, str]:
    return parse_getprop((GETPROP / "galaxy_z_fold7_sm8750_oneui8.txt").read_text())


def find_x8() -> dict[str, str]:
    return parse_getprop((GETPROP / "oppo_find_x8_pro_mt6991.txt").read_text())


def test_properties_of_real_phones_are_read() -> None:
    assert (fold7()["ro.soc.model"], fold7()["ro.product.model"], fold7()["ro.board.platform"]) == ("SM8750", "SM-F9660", "sun")
    assert (find_x8()["ro.soc.model"], find_x8()["ro.product.model"]) == ("MT6991", "PKC110")
    assert (len(fold7()), len(find_x8())) == (1453, 2505)


def test_a_property_may_span_lines() -> None:
    assert fold7()["persist.sys.boot.reason.history"] == "reboot,ota,1754328607\nreboot,abfotaupdate,1754328549"
    assert fold7()["persist.sys.clear_package_cache_needed"] == "false"
    assert find_x8()["vendor.debug.pq.xml.mode"] == "15"


def test_a_line_that_is_no_property_spoils_none_around_it() -> None:
    assert find_x8()["ro.oplus.server_url_2"].endswith("?number=")
    assert find_x8()["ro.oplus.system.camera.name"] == "com.oplus.camera"


def test_the_same_chip_in_another_phone_is_no_match() -> None:
    profile = load_profile("s25")
    assert profile.soc.model == fold7()["ro.soc.model"]
    assert not profile.matches(fold7())
    assert not load_profile("tabs11").matches(find_x8())


def test_devices_are_read_with_odd_serials_and_states() -> None:
    text = (
        "R3CX30ABCDE            device usb:1-4 product:pa1qxxx model:SM_S931B device:pa1q transport_id:3\n"
        "adb-R5 (2)._adb-tls-connect._tcp device product:x model:Y device:z transport_id:9\n"
        "emulator-5554          offline transport_id:1\n"
        "R9                     unauthorized usb:1-1 transport_id:2\n"
        "0123456789ABCDEF       no permissions (user in plugdev group; are your udev rules wrong?); "
        "see [http://developer.android.com/tools/device.html] usb:1-2 transport_id:4\n"
    )
    devices = parse_device_list(text)
    assert [device.serial for device in devices] == [
        "R3CX30ABCDE", "adb-R5 (2)._adb-tls-connect._tcp", "emulator-5554", "R9", "0123456789ABCDEF",
    ]  # fmt: skip
    assert [device.state for device in devices[:4]] == ["device", "device", "offline", "unauthorized"]
    assert devices[4].state.startswith("no permissions (user in plugdev group")
    assert [device.is_ready for device in devices] == [True, True, False, False, False]
    assert devices[0].words["model"] == "SM_S931B"


THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=99.9, mType=3, mName=SKIN, mStatus=4}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 3  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=41.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=38.25, mType=3, mName=SKIN, mStatus=2}
\tTemperature{mValue=0.0, mType=9, mName=TPU, mStatus=0}
\tTemperature{mValue=-3.4028235E38, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=NaN, mType=1, mName=GPU1, mStatus=0}
\tTemperature{mValue=87.0, mType=8, mName=soc, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 39.0], mColdThrottlingThresholds=[NaN]}
"""


def test_temperatures_are_those_of_the_hal_now_and_only_of_sensors_that_are_on() -> None:
    state = parse_thermal(THERMAL)
    assert (state.status, state.status_name) == (2, "moderate")
    assert [(sensor.name, sensor.kind, sensor.celsius, sensor.status) for sensor in state.temperatures] == [
        ("CPU0", "cpu", 41.5, 0),
        ("SKIN", "skin", 38.25, 2),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Can't find service: thermalservice\n",
        "Cached temperatures:\n\tTemperature{mValue=30.0, mType=3, mName=SKIN, mStatus=0}\n",
    ],
)
def test_a_device_that_reports_no_temperature_is_unknown_rather_than_cool(text: str) -> None:
    assert parse_thermal(text).temperatures == ()
    assert parse_thermal(text).status is None


def test_a_battery_is_read() -> None:
    state = parse_battery(
        "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  present: true\n  level: 85\n  scale: 100\n"
        "  voltage: 4200\n  temperature: 283\n  technology: Li-ion\n"
    )
    assert (state.level_percent, state.temperature_c, state.powered_by) == (85.0, 28.3, ("USB",))
