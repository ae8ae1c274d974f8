"""Progress files in the results folder: running commands write them, and other processes may read them.

The file of a killed command stays. It is ignored once its process is dead or silent for too long.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime

from quadbench.artifacts import Variant
from quadbench.artifacts.safe_text import FileName
from quadbench.errors import ArtifactError
from quadbench.host import has_ended
from quadbench.results.documents import read_document, write_document
from quadbench.results.layout import Layout

HEARTBEAT_S = 10.0  # a file is written this often, even without news
SCHEMA_VERSION = 1
_SILENCE = timedelta(seconds=6 * HEARTBEAT_S)
_MAX_FILES = 100  # files that are read

log = logging.getLogger(__name__)


class Stage(StrEnum):
    """The stages of a running command on one device, as progress files report them."""

    PUSH = "push"
    MEASURE = "measure"
    WAIT = "wait"  # the device was lost, and the command waits for it
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class DeviceProgress:
    """A command's progress on one device: bytes sent, number of the current launch, images made in it, and the total of each."""

    stage: Stage
    sent_bytes: int = 0
    total_bytes: int = 0
    launch: int = 0
    launches: int = 0
    variant: Variant | None = None
    task: str = ""
    image: int = 0
    images: int = 0
    reason: str = ""

    @property
    def share(self) -> float | None:
        """Return the completed fraction (0 to 1) of the device's stage, such as pushing files. A lost device gives None."""
        match self.stage:
            case Stage.PUSH:
                return _share(self.sent_bytes, self.total_bytes)
            case Stage.MEASURE:
                return _share(max(0, self.launch - 1) + _share(self.image, self.images), self.launches)
            case Stage.WAIT:
                return None
            case Stage.DONE:
                return 1.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A running command's activity, user, run id and times. `devices` is a dict from device address to DeviceProgress.

    A comparison has several runs, so its `run_id` is None. `process` identifies the process; `updated_at` is its last
    heartbeat.
    """

    schema_version: int = SCHEMA_VERSION
    what: str
    owner: str
    process: str
    run_id: FileName | None
    began_at: AwareDatetime
    updated_at: AwareDatetime
    stage: str = ""
    detail: str = ""
    devices: Mapping[str, DeviceProgress] = field(default_factory=dict)

    def is_alive(self, now: datetime) -> bool:
        """Return False if the command's process is known to have ended, or its last heartbeat is a minute old; else True."""
        return not has_ended(self.process) and abs(now - self.updated_at) < _SILENCE


def save_progress(layout: Layout, name: str, progress: Progress) -> None:
    """Write the progress file of a command atomically. Raise StorageError if the results folder is missing, full or read-only."""
    write_document(layout.progress(name), progress, makes_folders=False)


def active_work(layout: Layout) -> list[Progress]:
    """Return the progress of all running commands in order of their start. Damaged progress files are skipped."""
    now = datetime.now(UTC)
    return sorted((one for _, one in _known(layout, _MAX_FILES) if one.is_alive(now)), key=lambda one: one.began_at)


def may_be_at_work(layout: Layout) -> list[Progress]:
    """Return a list of Progress: one per command whose process is not known to have ended, however old its heartbeat."""
    return [progress for _, progress in _known(layout) if not has_ended(progress.process)]


def remove_ended(layout: Layout) -> None:
    """Delete the progress files of commands whose process has ended or whose last heartbeat is at least a minute old."""
    now = datetime.now(UTC)
    for path, progress in _known(layout):
        if not progress.is_alive(now):
            path.unlink(missing_ok=True)


def _known(layout: Layout, most: int | None = None) -> Iterator[tuple[Path, Progress]]:
    for path in sorted(layout.at_work.glob("*.json"), reverse=True)[:most]:
        try:
            yield path, read_document(path, Progress, version=SCHEMA_VERSION)
        except ArtifactError as error:
            log.debug("%s; the progress file is skipped", error)


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole else 0.0
