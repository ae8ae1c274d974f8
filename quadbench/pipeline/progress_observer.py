"""Publish a run's progress in a file that an observer updates. Other processes, such as the live page's server, read the file.

The observed thread only updates a value in memory. Another thread writes it to disk at most once a second; failed writes are
ignored.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import ArtifactError
from quadbench.host import background, process_identity, user_and_host
from quadbench.observer import Observer
from quadbench.results.layout import Layout
from quadbench.results.progress import HEARTBEAT_S, DeviceProgress, Progress, Stage, remove_ended, save_progress

_PERIOD_S = 1.0
_MAX_TEXT = 500

log = logging.getLogger(__name__)


@contextmanager
def publish_progress(observer: Observer, layout: Layout, what: str, run_id: str | None = None) -> Iterator[Observer]:
    """Yield an observer that writes progress to a file for other processes. `what` is a title; a comparison has no `run_id`."""
    now = datetime.now(UTC)
    begun = Progress(
        what=one_line(what, _MAX_TEXT),
        owner=user_and_host(),
        process=process_identity(),
        run_id=run_id,
        began_at=now,
        updated_at=now,
    )
    progress_observer = _ProgressObserver(observer, begun)
    name = f"{now:%Y%m%d-%H%M%S}-{uuid4().hex[:8]}"
    try:
        with background(partial(_flush, progress_observer, layout, name), "quadbench-progress"):
            yield progress_observer
    finally:
        with suppress(OSError):
            layout.progress(name).unlink(missing_ok=True)
            layout.at_work.rmdir()  # fails, as it should, while others use the folder


def _flush(progress_observer: "_ProgressObserver", layout: Layout, name: str, done: threading.Event) -> None:
    """Write the progress file whenever the progress changes, and regularly as a sign of life, until `done` is set."""
    with suppress(OSError):
        remove_ended(layout)
    written, written_at = None, 0.0
    while True:
        progress, now = progress_observer.progress, time.monotonic()
        if progress is not written or now - written_at >= HEARTBEAT_S:
            written, written_at = progress, now
            try:
                layout.at_work.mkdir(exist_ok=True)
                save_progress(layout, name, replace(progress, updated_at=datetime.now(UTC)))
            except (ArtifactError, OSError) as error:
                log.debug("the progress file cannot be written: %s", error)
        if done.wait(_PERIOD_S):
            return


class _ProgressObserver:
    """Forwards all events to another observer, and keeps the latest progress for the thread that writes the progress file."""

    def __init__(self, observer: Observer, progress: Progress) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self.progress = progress

    def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
        with self._lock:
            self.progress = replace(self.progress, stage=one_line(stage, _MAX_TEXT), detail=one_line(detail, _MAX_TEXT))
        self._observer.stage_step(stage, detail, share)

    def bundle_built(self, bundle: Bundle) -> None:
        self._observer.bundle_built(bundle)

    def artifact_reused(self, stage: str, digest: str) -> None:
        self._observer.artifact_reused(stage, digest)

    def bytes_sent(self, device: str, sent_bytes: int, total_bytes: int) -> None:
        self._note(device, DeviceProgress(stage=Stage.PUSH, sent_bytes=sent_bytes, total_bytes=total_bytes))
        self._observer.bytes_sent(device, sent_bytes, total_bytes)

    def deploy_done(self, deployment: Deployment) -> None:
        self._observer.deploy_done(deployment)

    def launch_started(self, device: str, launch: LaunchPlan, number: int, total: int) -> None:
        variant, images = launch.variant, launch.images
        self._note(device, DeviceProgress(stage=Stage.MEASURE, variant=variant, launch=number, launches=total, images=images))
        self._observer.launch_started(device, launch, number, total)

    def image_done(self, device: str, task: str, images: int) -> None:
        with self._lock:
            if known := self.progress.devices.get(device):
                self._set(device, replace(known, task=one_line(task, _MAX_TEXT), image=images))
        self._observer.image_done(device, task, images)

    def device_lost(self, device: str, reason: str, wait_s: float) -> None:
        self._note(device, DeviceProgress(stage=Stage.WAIT, reason=one_line(reason, _MAX_TEXT)))
        self._observer.device_lost(device, reason, wait_s)

    def device_back(self, device: str, away_s: float) -> None:
        self._observer.device_back(device, away_s)

    def record_stored(self, record: RunRecord) -> None:
        device = record.device.address
        with self._lock:
            known = self.progress.devices.get(device)
            if known and known.launch == known.launches:
                self._set(device, replace(known, stage=Stage.DONE))
        self._observer.record_stored(record)

    def _note(self, device: str, progress: DeviceProgress) -> None:
        with self._lock:
            self._set(device, progress)

    def _set(self, device: str, progress: DeviceProgress) -> None:
        self.progress = replace(self.progress, devices={**self.progress.devices, device: progress})
