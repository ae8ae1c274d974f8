"""The gate lets a device start or says why not; its state is recorded as it was told."""

from collections.abc import Callable
from dataclasses import replace

from quadbench.artifacts import Caveat
from quadbench.devices.dumpsys import BatteryState, CoolingDevice, ThermalState
from quadbench.measure.gate import GateLimits, gate, wait_at_gate
from quadbench.measure.state import Clock, DeviceState, flatten, parse_state

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
    decision = gate(state, GateLimits(), shares_host_cpu=shares_host_cpu)
    return decision.is_open, decision.caveats


def test_the_gate_is_open_to_a_cool_charged_device() -> None:
    assert judge(COOL) == (True, ())
    assert judge(replace(COOL, thermal=ThermalState(status=1, temperatures=()))) == (True, ())


def test_the_gate_is_shut_to_heat_and_low_battery_and_names_both() -> None:
    state = replace(HOT, battery=BatteryState(level_percent=19.0, temperature_c=None, powered_by=()))
    assert gate(state, GateLimits(), shares_host_cpu=False).objections == (
        "thermal status 2 (moderate), at most 1 allowed",
        "battery at 19 %, at least 20 % needed",
    )


def test_load_is_a_caveat_on_this_machine_and_nothing_on_a_phone() -> None:
    loaded = replace(COOL, load_1min=8.1)
    assert judge(loaded, shares_host_cpu=True) == (True, (Caveat.LOADED_HOST,))
    assert judge(loaded) == (True, ())


def test_capped_clocks_are_a_caveat() -> None:
    capped = Clock(policy="policy0", khz=1_000_000, cap_khz=2_000_000, hardware_khz=3_000_000)
    assert judge(replace(COOL, clocks=(capped,))) == (True, (Caveat.THROTTLED,))


def test_a_processor_that_is_slowed_down_is_a_caveat_and_a_modem_is_none() -> None:
    def slowed(kind: str, level: int) -> DeviceState:
        part = CoolingDevice(name="x", kind=kind, level=level)
        return replace(COOL, thermal=ThermalState(status=0, temperatures=(), cooling=(part,)))

    assert judge(slowed("cpu", 2)) == (True, (Caveat.THROTTLED,))
    assert judge(slowed("npu", 1)) == (True, (Caveat.THROTTLED,))
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
    assert set(flatten(state, "before").values()) == {"unavailable"}
    assert flatten(None, "after") == {"after.state": "unavailable"}


def test_the_gate_waits_until_the_device_has_cooled_down() -> None:
    states, slept = iter([HOT, HOT, COOL]), list[float]()
    state, decision = wait_at_gate(
        lambda: next(states), GateLimits(poll_s=15), shares_host_cpu=False, sleep=slept.append, clock=lambda: 0
    )
    assert (state, decision.is_open, slept) == (COOL, True, [15, 15])


def test_the_gate_gives_up_when_its_time_is_over() -> None:
    now = [0.0]
    _, decision = wait_at_gate(
        lambda: HOT, GateLimits(timeout_s=60, poll_s=15), shares_host_cpu=False, sleep=_advance(now), clock=lambda: now[0]
    )
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
    assert flatten(state, "before") == {
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
        "before.clocks": "policy0 1000/2000/3000 kHz, policy6 ?/4000/? kHz",
        "before.cooling": "unavailable",
        "before.temperatures_c": "SKIN 41.5",
    }


def _advance(now: list[float]) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        now[0] += seconds

    return sleep
