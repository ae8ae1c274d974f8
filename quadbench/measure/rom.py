"""ROM: an installation and a launch -> the sizes of the files that the launch runs, as the device has them."""

import re

from quadbench.artifacts import Component, FileRef, LaunchPlan, Sample
from quadbench.artifacts.run_record import adapters_of, components_of, tasks_of, unets_of
from quadbench.devices import Device
from quadbench.errors import DeviceError
from quadbench.harness.installation import Installation

_TIMEOUT_S = 30.0


def rom_samples(installation: Installation, launch: LaunchPlan) -> tuple[Sample, ...]:
    """Return `rom_bytes` of every graph (labels.kind `base`) and adapter (`adapter`) that the launch's tasks need.

    Raises:
        DeviceError: a file is not there, or has another size than the bundle's.
    """
    files = _files(installation, launch)
    sizes = _sizes(installation.device, sorted({installation.path_of(file) for file, _, _ in files}))
    samples = []
    for file, component, labels in files:
        place = installation.path_of(file)
        size_bytes = sizes.get(place)
        if size_bytes != file.size_bytes:
            raise DeviceError(
                f"'{place}' on device '{installation.address}' has {'no file' if size_bytes is None else f'{size_bytes} bytes'}, "
                f"expected the {file.size_bytes} bytes of '{file.path}'",
                hint="push the bundle again",
            )
        samples.append(Sample(metric="rom_bytes", value=float(size_bytes), component=component, labels=labels))
    return tuple(samples)


def _files(installation: Installation, launch: LaunchPlan) -> list[tuple[FileRef, Component | None, dict[str, str]]]:
    bundle, compiled, variant = installation.bundle.artifact, installation.compiled.artifact, launch.variant
    tasks = tasks_of(bundle, launch)
    components = components_of(bundle, compiled, variant)
    unets = unets_of(bundle, compiled, variant, tasks)
    adapters = adapters_of(bundle, variant, tasks)
    return [
        *((graph.file, part, {"kind": "base"}) for part, graph in components.items()),
        *(
            (file, Component.UNET, {"kind": "base", "unet": name})
            for name, graph in unets.items()
            for file in (graph.file, graph.data, graph.merge)
            if file
        ),
        *((adapter.file, None, {"kind": "adapter", "adapter": name}) for name, adapter in adapters.items()),
    ]


def _sizes(device: Device, paths: list[str]) -> dict[str, int]:
    """Return the sizes of those that exist; `stat` complains of the others and goes on."""
    result = device.shell(["stat", "-c", "%s %n", *paths], _TIMEOUT_S)
    return {path: int(size) for size, path in re.findall(r"^(\d{1,18}) (.+)$", result.stdout, re.MULTILINE)}
