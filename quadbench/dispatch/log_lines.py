"""Log an attempt at a job. Keep the last lines for the database, and append all lines to a file of the host."""

import logging
from collections import deque
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import StorageError
from quadbench.farm.job import Job

log = logging.getLogger(__name__)

MOST_LINES = 400  # last lines that are kept of an attempt
_MOST_CHARACTERS = 400  # limit for one line


class LogLines(logging.Handler):
    """A log handler that keeps the last lines of the log in memory."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a log record to the kept lines, with the time of day in UTC. Above 400 lines, drop the oldest line."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        self._lines.append(f"{at} {one_line(record.getMessage())[:_MOST_CHARACTERS]}")

    def text(self) -> str:
        """Return the log's last lines, which this handler keeps, as one text."""
        return "\n".join(self._lines)


def log_attempt(path: Path, job: Job) -> LogLines:
    """Append all log records to the file `path`, naming `job`. Return a LogLines, the handler that keeps the last 400 lines.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = WatchedFileHandler(path)  # goes on in a new file when this one is moved
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error.strerror}") from error
    lines = LogLines()
    file.setFormatter(logging.Formatter(f"%(asctime)s job {job.id}, attempt {job.attempt}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines, file], force=True)
    logging.getLogger("quadbench").setLevel(logging.INFO)
    return lines


class LogObserver:
    """An observer that writes the progress events of a job to the log."""

    def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
        log.info("%s %s", stage, detail)

    def bundle_built(self, bundle: Bundle) -> None:
        log.info("built %s", bundle.digest)

    def artifact_reused(self, stage: str, digest: str) -> None:
        log.info("%s %s is there", stage, digest[:12])

    def bytes_sent(self, device: str, sent_bytes: int, total_bytes: int) -> None:
        """Ignore the progress of a push to the device. When the push has ended, `deploy_done` logs how many bytes were sent."""

    def deploy_done(self, deployment: Deployment) -> None:
        log.info("%s: %d bytes sent in %.1f s", deployment.device.address, deployment.sent_bytes, deployment.seconds)

    def launch_started(self, device: str, launch: LaunchPlan, number: int, total: int) -> None:
        log.info("%s: launch %d of %d, %s %d", device, number, total, launch.variant, launch.launch)

    def image_done(self, device: str, task: str, images: int) -> None:
        """Ignore the event that an image is done, because a launch generates hundreds of images, which would fill the log."""

    def device_lost(self, device: str, reason: str, wait_s: float) -> None:
        log.warning("%s: %s; it is waited for, at most %g s", device, reason, wait_s)

    def device_back(self, device: str, away_s: float) -> None:
        log.info("%s: it is back after %.1f s", device, away_s)

    def record_stored(self, record: RunRecord) -> None:
        log.info("%s: %s %d is %s", record.device.address, record.variant, record.launch, record.status)
