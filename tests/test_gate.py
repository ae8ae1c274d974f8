"""The gate lets a device start or says why not; its state is recorded as it was told."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.sentences import reads

from quadbench.artifacts import Caveat
from quadbench.devices.android_reports import BatteryState, CoolingDevice, Temperature, ThermalState
from quadbench.measure.gate import Clock, DeviceState, gate, parse_state, state_texts, wait_at_gate
from quadbench.recipe.settings import Gate

COOL = DeviceState(
    thermal=ThermalState(status=0, temperatures=()),
    battery=BatteryState(level_percent=80.0, temperature_c=30.0, powered_by=("USB",)),
    screen="on",
    load_1min=1.0,
    cores=8,
    memory_total_bytes=12 * 2**30,
    memory_available_bytes=8 * 2**30,
    uptime_s=1000.0,
    clocks=(Clock(policy="policy0", khz=1_000_000, cap_khz=3_000_000, hardware_khz=3_000_000),),
)
HOT = replace(COOL, thermal=ThermalState(status=2, temperatures=()))


def judge(state: DeviceState, *, shares_host_cpu: bool = False) -> tuple[bool, tuple[Caveat, ...]]:
    decision = gate(state, Gate(), shares_host_cpu=shares_host_cpu)
    return decision.is_open, decision.caveats


def test_the_gate_is_open_to_a_cool_charged_device() -> None:
    assert judge(COOL) == (True, ())
    assert judge(replace(COOL, thermal=ThermalState(status=1, temperatures=()))) == (True, ())


def test_the_gate_is_shut_to_heat_and_low_battery_and_names_both() -> None:
    state = replace(HOT, battery=BatteryState(level_percent=19.0, temperature_c=None, powered_by=()))
    reads(gate(state, Gate(), shares_host_cpu=False).objections, 2, 1, 19, 20)


def test_the_gate_is_shut_to_a_phone_that_is_busy_and_to_one_without_memory() -> None:
    state = replace(COOL, busy_percent=81.4, memory_available_bytes=90 * 2**20)
    reads(gate(state, Gate(), shares_host_cpu=False).objections, 81, 50, 90, 256)
    assert gate(state, Gate(min_free_mb=0), shares_host_cpu=True).is_open
    assert not gate(state, Gate(min_free_mb=0, max_busy_percent=80), shares_host_cpu=True).is_open


def test_the_gate_is_shut_to_a_warm_skin_where_the_recipe_says_how_warm() -> None:
    sensors = (
        Temperature(name="SKIN", kind="skin", celsius=39.0, status=0),
        Temperature(name="X", kind="soc", celsius=60, status=0),
    )
    state = replace(COOL, thermal=ThermalState(status=0, temperatures=sensors))
    assert judge(state) == (True, ())
    shut = gate(state, Gate(max_skin_c=38), shares_host_cpu=False)
    assert shut.caveats == (Caveat.THROTTLED,)
    reads(shut.objections, "39.0", 38)


def test_how_busy_a_cpu_is_comes_from_two_looks_at_the_kernels_ticks() -> None:
    looks = "@@quadbench busy\ncpu  100 0 100 800 0 0 0 0 0 0\ncpu  130 0 110 860 0 0 0 0 0 0\n"
    assert parse_state(looks).busy_percent == pytest.approx(40.0)
    assert parse_state("@@quadbench busy\ncpu  1 2 3 4 5 6 7 8 9 0\n" * 1).busy_percent is None
    assert parse_state(looks.replace("130", "100").replace("110", "100").replace("860", "800")).busy_percent is None


def test_load_is_a_caveat_on_this_machine_and_nothing_on_a_phone() -> None:
    loaded = replace(COOL, load_1min=8.1)
    assert judge(loaded, shares_host_cpu=True) == (True, (Caveat.LOADED_HOST,))
    assert judge(loaded) == (True, ())


def test_the_gate_is_shut_to_capped_clocks_unless_they_are_taken_for_normal() -> None:
    capped = Clock(policy="policy0", khz=1_000_000, cap_khz=2_000_000, hardware_khz=3_000_000)
    state = replace(COOL, clocks=(capped,))
    decision = gate(state, Gate(), shares_host_cpu=False)
    reads(decision.objections, "policy0", "1000000/2000000/3000000", "measure.gate.allows_throttled")
    assert gate(state, Gate(allows_throttled=True), shares_host_cpu=False).is_open
    assert decision.caveats == (Caveat.THROTTLED,)


def test_the_gate_is_shut_to_a_processor_that_is_slowed_down_and_open_to_a_slow_modem() -> None:
    def slowed(kind: str, level: int) -> DeviceState:
        part = CoolingDevice(name="x", kind=kind, level=level)
        return replace(COOL, thermal=ThermalState(status=0, temperatures=(), cooling=(part,)))

    assert judge(slowed("cpu", 2)) == (False, (Caveat.THROTTLED,))
    assert judge(slowed("npu", 1)) == (False, (Caveat.THROTTLED,))
    assert judge(slowed("cpu", 0)) == (True, ())
    assert judge(slowed("modem", 1)) == (True, ())


def test_a_clock_whose_cap_is_not_told_is_not_taken_for_capped() -> None:
    untold = (
        Clock(policy="policy0", khz=None, cap_khz=None, hardware_khz=3),
        Clock(policy="policy4", khz=1, cap_khz=2, hardware_khz=None),
    )
    assert judge(replace(COOL, clocks=untold)) == (True, ())


def test_what_a_device_does_not_tell_is_not_held_against_it_and_is_recorded_as_unavailable() -> None:
    state = parse_state("")
    assert judge(state, shares_host_cpu=True) == (True, ())
    assert set(state_texts(state, "before").values()) == {"unavailable"}
    assert state_texts(None, "after") == {"after.state": "unavailable"}


def test_the_gate_waits_until_the_device_has_cooled_down() -> None:
    states, slept = iter([HOT, HOT, COOL]), list[float]()
    state, decision = wait_at_gate(lambda: next(states), Gate(), shares_host_cpu=False, sleep=slept.append, clock=lambda: 0)
    assert (state, decision.is_open, slept) == (COOL, True, [15, 15])


def test_the_gate_gives_up_when_its_time_is_over() -> None:
    now = [0.0]
    _, decision = wait_at_gate(lambda: HOT, Gate(wait_s=60), shares_host_cpu=False, sleep=_advance(now), clock=lambda: now[0])
    assert (decision.is_open, now) == (False, [60.0])


def test_the_state_of_a_phone_is_read_from_what_it_prints() -> None:
    state = parse_state(
        "@@quadbench thermal\nThermal Status: 1\nCurrent temperatures from HAL:\n"
        "\tTemperature{mValue=41.5, mType=3, mName=SKIN, mStatus=1}\n"
        "@@quadbench battery\nCurrent Battery Service state:\n  USB powered: true\n  present: true\n  level: 77\n  scale: 100\n"
        "  temperature: 312\n@@quadbench screen\n"
        "  mWakefulness=Awake\n@@quadbench load\n3.25 2.0 1.0 2/900 1234\n@@quadbench memory\nMemTotal:  1000 kB\n"
        "MemAvailable: 400 kB\n@@quadbench uptime\n86400.50 1.0\n@@quadbench cores\n8\n@@quadbench clocks\n"
        "policy0 1000 2000 3000\npolicy6 - 4000 -\n"
    )
    assert state_texts(state, "before") == {
        "before.thermal_status": "1",
        "before.battery_percent": "77.0",
        "before.battery_temperature_c": "31.2",
        "before.battery_powered_by": "USB",
        "before.screen": "on",
        "before.load_1min": "3.25",
        "before.cores": "8",
        "before.memory_total_bytes": "1024000",
        "before.memory_available_bytes": "409600",
        "before.uptime_s": "86400.5",
        "before.busy_percent": "unavailable",
        "before.clocks": "policy0 1000/2000/3000 kHz, policy6 ?/4000/? kHz",
        "before.cooling": "unavailable",
        "before.temperatures_c": "SKIN 41.5",
    }


def _advance(now: list[float]) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        now[0] += seconds

    return sleep
