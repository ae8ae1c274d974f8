"""Fetch: the images that a harness announced, on the device -> files here, none larger than an image can be."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from quadbench.artifacts import ErrorClass
from quadbench.devices import Device
from quadbench.harness.events import ImageEvent
from quadbench.measure.images import WrongImageError

IMAGE_LIMIT_BYTES = 32 * 2**20
"""Bytes of one image that are copied: a PNG of 2048 x 2048 pixels that cannot be compressed takes half of it."""
_TIMEOUT_S = 60.0
# `find` follows no links, so what it gives lies where it says.
_LIST = 'if [ -d "$1" ]; then find "$1" -type f -exec stat -c "%s %n" {} +; fi'


def painted_files(device: Device, folder: str) -> dict[str, int]:
    """Return the path and the size of every regular file below a folder of the device.

    Raises:
        DeviceError: the device does not answer, or lists more than is read.
    """
    result = device.shell(["sh", "-c", _LIST, "sh", folder], _TIMEOUT_S)
    return {path: int(size) for size, path in re.findall(r"^(\d{1,18}) (.+)$", result.stdout, re.MULTILINE)}


def fetch_image(device: Device, event: ImageEvent, files: Mapping[str, int], local: Path) -> None:
    """Copy an announced image here.

    Raises:
        WrongImageError: there is no such file, it is no regular file or too large, or it is not what the harness wrote.
        DeviceError: the device went away, or the file cannot be read.
    """
    name = f"{event.task}/{event.item}"
    size_bytes = files.get(event.path)
    if size_bytes is None:
        raise WrongImageError(f"image {name}: '{event.path}' is no regular file on the device", ErrorClass.HARNESS)
    if size_bytes > IMAGE_LIMIT_BYTES:
        message = f"image {name} has {size_bytes} bytes, expected at most {IMAGE_LIMIT_BYTES}"
        raise WrongImageError(message, ErrorClass.HARNESS)
    local.parent.mkdir(parents=True, exist_ok=True)
    device.pull(event.path, local, limit_bytes=IMAGE_LIMIT_BYTES)
    with local.open("rb") as file:
        arrived = hashlib.file_digest(file, "sha256").hexdigest()
    if arrived != event.sha256:
        message = f"image {name} arrived with sha256 {arrived}, the harness wrote {event.sha256}"
        raise WrongImageError(message, ErrorClass.DEVICE)
