"""Work now: the results folder -> the commands that are at work in it at this moment, each with what it does in words."""

from quadbench.artifacts import MIB
from quadbench.results.layout import Layout
from quadbench.results.progress import DeviceProgress, Progress, Stage, under_way
from quadbench.serve.documents import AtWork, DeviceAtWork, WorkUnderWay


def read_work(layout: Layout) -> WorkUnderWay:
    """Return what goes on."""
    return WorkUnderWay(work=tuple(map(_at_work, under_way(layout))))


def _at_work(progress: Progress) -> AtWork:
    devices = tuple(
        DeviceAtWork(address=address, stage=device.stage.value, doing=doing(device), share=device.share)
        for address, device in progress.devices.items()
    )
    return AtWork(
        what=progress.what,
        owner=progress.owner,
        run_id=progress.run_id,
        began_at=progress.began_at,
        stage="measure" if devices else progress.stage,
        detail="" if devices else progress.detail,
        devices=devices,
    )


def doing(device: DeviceProgress) -> str:
    """Return what a device does, in words."""
    match device.stage:
        case Stage.PUSH:
            return f"{device.sent_bytes / MIB:.1f} of {device.total_bytes / MIB:.1f} MB pushed"
        case Stage.MEASURE:
            which = "/".join(filter(None, (device.task, device.variant and device.variant.value)))
            images = f", image {device.image} of {device.images}" if device.images else ""
            return f"launch {device.launch} of {device.launches}{images}{f', {which}' if which else ''}"
        case Stage.WAIT:
            return f"lost, and waited for: {device.reason}"
        case Stage.DONE:
            return f"all {device.launches} launches done" if device.launches != 1 else "its launch is done"
