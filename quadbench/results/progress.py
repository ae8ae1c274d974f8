"""Progress: what goes on at this moment <-> a small file of the results folder for each command at work, which others may read.

A file goes with its command. Where a command was killed it stays, and tells of nothing: its process is dead, or gave no sign of
life for too long.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime

from quadbench.artifacts import Variant
from quadbench.artifacts.names import FileName
from quadbench.errors import ArtifactError
from quadbench.host import is_dead
from quadbench.results.documents import read_document, write_document
from quadbench.results.layout import Layout

HEARTBEAT_S = 10.0  # in which a file is written, even where nothing is new
SCHEMA_VERSION = 1
_SILENCE = timedelta(seconds=6 * HEARTBEAT_S)
_MOST_FILES = 100  # that are read

log = logging.getLogger(__name__)


class Stage(StrEnum):
    """The stages that a device goes through."""

    PUSH = "push"
    MEASURE = "measure"
    WAIT = "wait"  # it was lost, and is waited for
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class DeviceProgress:
    """A device: the bytes that it has of those that are pushed; the launch under way of all, and the image of that launch's."""

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
        """Return the share of the stage that is done; None where that cannot be told."""
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
    """A command at work: `what` it does for whom, in which run, the step of its stage, and its devices by address.

    A comparison makes several runs, and names none. `process` is the mark of the process; `updated_at` its last sign of life.
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
        """Say whether the command is at work still, as far as can be told here."""
        return not is_dead(self.process) and abs(now - self.updated_at) < _SILENCE


def save_progress(layout: Layout, name: str, progress: Progress) -> None:
    """Write a command's file, whole or not at all. A results folder that is not there is not made for this.

    Raises:
        StorageError: the folder is full, cannot be written, or is not there.
    """
    write_document(layout.progress(name), progress, makes_folders=False)


def under_way(layout: Layout) -> list[Progress]:
    """Return what goes on at this moment, in the order in which it began. A file that is damaged is left out."""
    now = datetime.now(UTC)
    read = [progress for path in _files(layout)[:_MOST_FILES] if (progress := _read(path))]
    return sorted((one for one in read if one.is_alive(now)), key=lambda one: one.began_at)


def may_be_at_work(layout: Layout) -> list[Progress]:
    """Return the work of every process that is not known to have ended, also of one that is silent, as one that is frozen."""
    return [progress for path in _files(layout) if (progress := _read(path)) and not is_dead(progress.process)]


def forget_dead(layout: Layout) -> None:
    """Remove the files of commands that were killed."""
    now = datetime.now(UTC)
    for path in _files(layout):
        progress = _read(path)
        if progress and not progress.is_alive(now):
            path.unlink(missing_ok=True)


def _files(layout: Layout) -> list[Path]:
    return sorted(layout.at_work.glob("*.json"), reverse=True)


def _read(path: Path) -> Progress | None:
    try:
        return read_document(path, Progress, version=SCHEMA_VERSION)
    except ArtifactError as error:
        log.debug("%s; it is left out", error)
        return None


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole else 0.0
