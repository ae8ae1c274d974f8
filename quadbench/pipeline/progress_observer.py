"""An observer that also writes the progress of a run to a file, for other processes such as the live page.

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
from uuid import uuid4

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord
from quadbench.artifacts.names import one_line
from quadbench.errors import ArtifactError
from quadbench.host import process_mark, user_and_host
from quadbench.observer import Observer
from quadbench.results.layout import Layout
from quadbench.results.progress import HEARTBEAT_S, DeviceProgress, Progress, Stage, forget_dead, save_progress

_PERIOD_S = 1.0
_MOST_TEXT = 500

log = logging.getLogger(__name__)


@contextmanager
def seen_by_others(observer: Observer, layout: Layout, what: str, run_id: str | None = None) -> Iterator[Observer]:
    """Let other processes see the progress of some work while the block runs. `what` names it; `run_id` is its run, if any."""
    now = datetime.now(UTC)
    begun = Progress(
        what=one_line(what, _MOST_TEXT),
        owner=user_and_host(),
        process=process_mark(),
        run_id=run_id,
        began_at=now,
        updated_at=now,
    )
    seen = _Seen(observer, begun)
    name, over = f"{now:%Y%m%d-%H%M%S}-{uuid4().hex[:8]}", threading.Event()
    thread = threading.Thread(target=_keep, args=(seen, layout, name, over), name="quadbench-progress", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            layout.progress(name).unlink(missing_ok=True)
            layout.at_work.rmdir()  # fails, as it should, while others use the folder


def _keep(seen: "_Seen", layout: Layout, name: str, over: threading.Event) -> None:
    """Write the progress file on changes, or as a heartbeat, until `over` is set."""
    with suppress(OSError):
        forget_dead(layout)
    written, written_at = None, 0.0
    while True:
        progress, now = seen.progress, time.monotonic()
        if progress is not written or now - written_at >= HEARTBEAT_S:
            written, written_at = progress, now
            try:
                layout.at_work.mkdir(exist_ok=True)
                save_progress(layout, name, replace(progress, updated_at=datetime.now(UTC)))
            except (ArtifactError, OSError) as error:
                log.debug("others do not see how this goes on: %s", error)
        if over.wait(_PERIOD_S):
            return


class _Seen:
    """An observer that forwards events and keeps the latest progress as an immutable value, which another thread reads."""

    def __init__(self, observer: Observer, progress: Progress) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self.progress = progress

    def step(self, stage: str, detail: str, share: float | None = None) -> None:
        with self._lock:
            self.progress = replace(self.progress, stage=one_line(stage, _MOST_TEXT), detail=one_line(detail, _MOST_TEXT))
        self._observer.step(stage, detail, share)

    def built(self, bundle: Bundle) -> None:
        self._observer.built(bundle)

    def reused(self, stage: str, digest: str) -> None:
        self._observer.reused(stage, digest)

    def sent(self, device: str, sent_bytes: int, total_bytes: int) -> None:
        self._note(device, DeviceProgress(stage=Stage.PUSH, sent_bytes=sent_bytes, total_bytes=total_bytes))
        self._observer.sent(device, sent_bytes, total_bytes)

    def deployed(self, deployment: Deployment) -> None:
        self._observer.deployed(deployment)

    def launch(self, device: str, launch: LaunchPlan, number: int, total: int) -> None:
        variant, images = launch.variant, launch.images
        self._note(device, DeviceProgress(stage=Stage.MEASURE, variant=variant, launch=number, launches=total, images=images))
        self._observer.launch(device, launch, number, total)

    def painted(self, device: str, task: str, images: int) -> None:
        with self._lock:
            if known := self.progress.devices.get(device):
                self._set(device, replace(known, task=one_line(task, _MOST_TEXT), image=images))
        self._observer.painted(device, task, images)

    def lost(self, device: str, reason: str, wait_s: float) -> None:
        self._note(device, DeviceProgress(stage=Stage.WAIT, reason=one_line(reason, _MOST_TEXT)))
        self._observer.lost(device, reason, wait_s)

    def regained(self, device: str, away_s: float) -> None:
        self._observer.regained(device, away_s)

    def record(self, record: RunRecord) -> None:
        device = record.device.address
        with self._lock:
            known = self.progress.devices.get(device)
            if known and known.launch == known.launches:
                self._set(device, replace(known, stage=Stage.DONE))
        self._observer.record(record)

    def _note(self, device: str, progress: DeviceProgress) -> None:
        with self._lock:
            self._set(device, progress)

    def _set(self, device: str, progress: DeviceProgress) -> None:
        self.progress = replace(self.progress, devices={**self.progress.devices, device: progress})
