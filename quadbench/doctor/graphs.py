"""Graphs: a device -> checks of all that runs graphs there: harness, kit, and the probe's image on the CPU and on its targets.

Everything goes the way of a run: built, compiled, pushed, launched, fetched and compared.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

from quadbench.artifacts import LIBRARY_PREFIX, MIB, RunRecord, Status, Variant
from quadbench.deploy import deploy
from quadbench.devices import Device
from quadbench.doctor.checks import Answer, PlannedCheck, failed, not_tried
from quadbench.doctor.probe_bundle import probe_bundle, probe_launch
from quadbench.errors import MissingDependencyError
from quadbench.harness.installation import Installation
from quadbench.harness.program import ensure_harness
from quadbench.measure import LaunchSettings, measure_launch
from quadbench.observer import Observer
from quadbench.recipe import Gate, Runtime
from quadbench.results.layout import Layout
from quadbench.rollout import install
from quadbench.rollout.equipment import Kind, host_runtime, kind_of, kit_for, local_file
from quadbench.target.targets import AiHubTarget, OnnxRuntimeTarget, QnnTarget, RunTarget, target_key

RUN_ID = "probe"
_TIMEOUT_S = 30.0
_LAUNCH_TIMEOUT_S = 60.0
_FLOAT_DIFFERENCE, _QUANTIZED_DIFFERENCE = 1, 4  # in 1/255; without its LoRA the image differs by 149
_CPU = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
_ANY_STATE = Gate(  # no figure comes of it
    max_thermal_status=6, allows_throttled=True, min_battery_percent=0.0, max_busy_percent=100.0, min_free_mb=0, wait_s=0.0
)


def graph_checks(device: Device, layout: Layout, observer: Observer) -> Iterator[PlannedCheck]:
    """Yield the checks: the CPU, then each target that the device could run."""
    own = kind_of(device)
    installed = cache(partial(_installed, device, layout, observer))  # by target; what failed is tried again

    def paint(target: RunTarget, variant: Variant) -> Answer:
        if isinstance(target, QnnTarget) and device.family != "adb" and target != own.target:
            return not_tried(
                "no NPU is emulated there unless its address asks for it", f"virtual:{device.profile.name}?target=qnn"
            )
        settings = LaunchSettings(
            run_id=RUN_ID, layout=layout.doctor, runtime=Runtime(threads=1), timeout_s=_LAUNCH_TIMEOUT_S, gate=_ANY_STATE
        )
        record = measure_launch(installed(target), probe_launch(variant), settings)
        judged = _judged(record, _QUANTIZED_DIFFERENCE if variant.is_quantized else _FLOAT_DIFFERENCE)
        return replace(judged, versions=record.versions | record.settings)

    yield PlannedCheck(name="harness", act=lambda: _harness(device, layout))
    yield PlannedCheck(name="runtime kit", act=lambda: _kit(own, layout))
    yield PlannedCheck(name="float graph on the CPU", act=lambda: paint(_CPU, Variant.FLOAT))
    for target in _targets(device, own):
        name = f"INT16 LoRA on {target_key(target, own.abi.traits.machine)}"
        yield PlannedCheck(name=name, act=partial(paint, target, Variant.SHARED))


def _targets(device: Device, own: Kind) -> list[RunTarget]:
    """Return the CPU, the device's own target, and its NPU, each once."""
    npu = (target for target in device.profile.targets() if isinstance(target, QnnTarget))
    targets = (target for target in (_CPU, own.target, *npu) if not isinstance(target, AiHubTarget))
    return list(dict.fromkeys(targets))


def _installed(device: Device, layout: Layout, observer: Observer, target: RunTarget) -> Installation:
    kind = replace(kind_of(device), target=target)
    return install(probe_bundle(), device, kind, layout=layout, observer=observer)


def _harness(device: Device, layout: Layout) -> Answer:
    try:
        program = local_file(ensure_harness(layout.programs, device.abi), executable=True)
    except MissingDependencyError as error:
        return failed(error.message, error.hint)
    place = deploy([program], device).objects[program.sha256]
    result = device.shell([place, "--version"], _TIMEOUT_S)
    if result.exit_code:
        return failed(f"it ended with exit code {result.exit_code}: {result.stderr}", f"it is built for {device.abi}")
    return Answer(said=f"{result.stdout.strip()}, {program.size_bytes / MIB:.1f} MB for {device.abi}")


def _kit(own: Kind, layout: Layout) -> Answer:
    try:
        choice = kit_for(own, layout)
    except MissingDependencyError as error:
        return failed(error.message, error.hint)
    if choice is None:
        return Answer(said=f"none is needed: the device has this machine's ABI, and takes its {host_runtime().path.name}")
    kit = choice.kit.artifact
    versions = ", ".join(f"{name} {text}" for name, text in kit.versions.items())
    return Answer(said=f"{kit.digest[:12]} with {versions}; {', '.join(library.name for library in choice.libraries)} are pushed")


def _judged(record: RunRecord, most: int) -> Answer:
    if record.status is not Status.OK:
        return failed(record.reason or f"the launch is {record.status}", "docs/troubleshooting.md has what such messages mean")
    difference = max(sample.value for sample in record.samples if sample.metric == "max_abs_difference")
    if difference > most:
        return failed(
            f"its image differs from the known one by {difference:.0f}/255; expected at most {most}/255",
            "these graphs compute something else on this device; no figure of it means anything until that is known",
        )
    libraries = sum(name.startswith(LIBRARY_PREFIX) for name in record.versions)
    version = record.versions.get("runtime", "unknown")
    runtime = version if record.settings.get("engine") else f"ONNX Runtime {version}"
    return Answer(said=f"its image is the known one within {difference:.0f}/255; {runtime}, {libraries} libraries loaded")
