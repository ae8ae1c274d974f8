"""Painted: a stored launch -> nothing, or which of its images is another than the harness painted."""

import logging
from contextlib import suppress
from pathlib import Path

from quadbench.artifacts import RunRecord
from quadbench.errors import ArtifactError
from quadbench.harness.events import ImageEvent, read_event
from quadbench.results.digests import sha256_of
from quadbench.results.layout import Layout
from quadbench.spec import read_file

EVENTS = "events.jsonl"
_MOST_EVENTS_BYTES = 2**28  # a hundred times those of the largest recipe here
_AGAIN = "its figures are whole in the database; run again for its images"

log = logging.getLogger(__name__)


def check_painted(record: RunRecord, layout: Layout) -> None:
    """Check that a launch's images have the content that its events announced. Whoever shows or scores them calls this first.

    An image that is absent is for the caller to tell. Where the events are gone, nothing can be checked, which a warning says.

    Raises:
        ArtifactError: names the first image that has another content, or the events that do not say which it had.
    """
    if not record.images:
        return
    events = layout.launch(record.run_id, record.device.address, record.variant, record.launch) / EVENTS
    images = {name: path for name, relative in record.images.items() if (path := layout.file(relative)).is_file()}
    if images and not events.exists():
        log.warning("'%s' is gone, so the images beside it are taken as they are", events)
        return
    announced = _announced(events) if images else {}
    for name, path in images.items():
        if name not in announced:
            raise ArtifactError(f"'{events}' was changed after it was written: it announces no image {name}", hint=_AGAIN)
        if (sha256 := sha256_of(path)) not in announced[name]:
            difference = f"its sha256 is {sha256}, expected {' or '.join(announced[name])}, as '{events}' has it"
            raise ArtifactError(f"'{path}' was changed after it was painted: {difference}", hint=_AGAIN)


def _announced(events: Path) -> dict[str, list[str]]:
    """Return the digests of every image, by its task and item. One that failed may have several, and other lines."""
    announced: dict[str, list[str]] = {}
    for line in read_file(events, fault=ArtifactError, hint=_AGAIN, most_bytes=_MOST_EVENTS_BYTES).splitlines():
        if b'"image"' not in line:
            continue
        with suppress(ValueError):
            event = read_event(line.decode())
            if isinstance(event, ImageEvent):
                announced.setdefault(f"{event.task}/{event.item}", []).append(event.sha256)
    return announced
