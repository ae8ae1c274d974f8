"""Hand-made: figures that a test says -> sweeps and comparisons that have them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from statistics import mean

from quadbench.artifacts import DeviceFacts, Variant
from quadbench.report.formatting import Unit
from quadbench.report.sweep import Sweep, SweepFigure, SweepPoint, with_best
from quadbench.report.versus import SideRow, TimedLaunch, Versus, VersusDevice, VersusSide
from quadbench.statistics.launch_comparison import compare_launches
from quadbench.statistics.multiple_testing import LOOKS
from support.synthetic_run import S25, STARTED_AT, TABS11

KEY = "precision.lora"
EVEN = (100.0, 100.2, 99.8, 100.1)  # times of launches, in ms, that hardly differ


def figure(key: str, values: Sequence[float], unit: str = "ms") -> SweepFigure:
    each = {f"{number:03d}": value for number, value in enumerate(values)}
    return SweepFigure(key=key, title=key, unit=unit, value=mean(values), n=len(values), error=0.1, each=each)


def point(value: str, task: str = "restyle", **figures: Sequence[float]) -> SweepPoint:
    """One point; `psnr` has a value for each item, `end_to_end` one for each launch, `bytes` one alone."""
    units = {"psnr": "dB", "bytes": "MB"}
    told = tuple(figure(key, values, units.get(key, "ms")) for key, values in figures.items())
    setting = {KEY: value}
    return SweepPoint(setting=setting, task=task, device="local", run_id=f"run-{value}", figures=told, reason=None, caveats=())


def sweep_of(*points: SweepPoint, touched: tuple[str, ...] = ("restyle",)) -> Sweep:
    return with_best(
        Sweep(
            sweep_id="20260102-030405-aaaa",
            recipe_name="quickstart",
            keys=(KEY,),
            published=None,
            points=points,
            touched=touched,
            command=f"quadbench sweep quickstart --over {KEY}=int16,int8 --devices local",
        )
    )


def comparison_of(slower: Mapping[str, float]) -> Versus:
    """Compare two sides on S25 and TABS11 in six blocks, B's times so much longer on each, by address."""
    side = VersusSide(source="quickstart", changes={}, variant=Variant.SHARED, run_id="run-a")
    devices = (_on(device, slower[device.address]) for device in (S25, TABS11) if device.address in slower)
    return Versus(
        comparison_id="20260102-030405-bbbb",
        a=side,
        b=replace(side, changes={"runtime.threads": "1"}, run_id="run-b"),
        to_see=None,
        devices=tuple(devices),
        failures={},
    )


def _on(device: DeviceFacts, slower: float) -> VersusDevice:
    a = [100e6 * (1 + 0.002 * (number % 3)) for number in range(12)]
    told = compare_launches(a, [value * slower for value in a], margin=LOOKS.margin, confidence=LOOKS.confidence)
    row = SideRow(
        device=device,
        task="restyle",
        key="end_to_end",
        title="End to end",
        unit=Unit.MILLISECONDS,
        a=None,
        b=None,
        comparison=told,
    )
    launches = tuple(
        TimedLaunch(
            side="ABBA"[number % 4],
            began_at=STARTED_AT + timedelta(seconds=20 * number),
            image_ns=100e6,
            temperature_c=30 + 0.1 * number,
        )
        for number in range(24)
    )
    differences = {"runtime.threads": ("2", "1")}
    return VersusDevice(device=device, blocks=6, looks=LOOKS, rows=(row,), differences=differences, caveats=(), launches=launches)
