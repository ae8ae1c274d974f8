"""ROM: the files that a launch runs -> their sizes as the device has them."""

import re

from quadbench.artifacts import Bundle, CompiledBundle, Component, Deployment, FileRef, Sample
from quadbench.devices.device import Device
from quadbench.errors import DeviceError
from quadbench.measure.harness_plan import adapters_of, components_of, tasks_of, unets_of
from quadbench.plan import LaunchPlan

_TIMEOUT_S = 30.0


def rom_samples(
    bundle: Bundle, compiled: CompiledBundle, deployment: Deployment, device: Device, launch: LaunchPlan
) -> tuple[Sample, ...]:
    """`rom_bytes` of every graph (labels.kind `base`) and adapter (`adapter`) that the launch's tasks need.

    Raises:
        DeviceError: a file is not there, or has another size than the bundle's.
    """
    files = _files(bundle, compiled, launch)
    places = deployment.objects
    sizes = _sizes(device, sorted({places[file.sha256] for file, _, _ in files}))
    samples = []
    for file, component, labels in files:
        place = places[file.sha256]
        found = sizes.get(place)
        if found != file.size_bytes:
            raise DeviceError(
                f"'{place}' on device '{device.facts.address}' has {'no file' if found is None else f'{found} bytes'}, "
                f"expected the {file.size_bytes} bytes of '{file.path}'",
                hint="push the bundle again",
            )
        samples.append(Sample(metric="rom_bytes", value=float(found), component=component, labels=labels))
    return tuple(samples)


def _files(
    bundle: Bundle, compiled: CompiledBundle, launch: LaunchPlan
) -> list[tuple[FileRef, Component | None, dict[str, str]]]:
    tasks = tasks_of(bundle, launch)
    components = components_of(bundle, compiled, launch.variant)
    unets = unets_of(bundle, compiled, launch.variant, tasks)
    adapters = adapters_of(bundle, launch.variant, tasks)
    return [
        *((graph.file, part, {"kind": "base"}) for part, graph in components.items()),
        *((graph.file, Component.UNET, {"kind": "base", "unet": name}) for name, graph in unets.items()),
        *((adapter.file, None, {"kind": "adapter", "adapter": name}) for name, adapter in adapters.items()),
    ]


def _sizes(device: Device, paths: list[str]) -> dict[str, int]:
    """Sizes of those that exist; stat complains of the others and goes on."""
    result = device.shell(["stat", "-c", "%s %n", *paths], _TIMEOUT_S)
    return {path: int(size) for size, path in re.findall(r"^(\d+) (.+)$", result.stdout, re.MULTILINE)}
