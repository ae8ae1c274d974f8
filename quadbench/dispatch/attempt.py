"""Execute one farm job that HTCondor has started at a slot of this host, and store the job's outcome.

A process of its own isolates each attempt: a crash, hang or leak affects no other. The last lines of its log go to the database,
and all lines to a file of the host.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from logging.handlers import WatchedFileHandler
from pathlib import Path
from urllib.parse import unquote

import sqlalchemy as sa

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.lab.leases import lease_time_s
from quadbench.dispatch.duties import Host, do
from quadbench.dispatch.orders import CompileAnswer, answer_of, as_json
from quadbench.errors import ArtifactError, AttemptOverError, DeviceError, QuadbenchError, StorageError, UnknownNameError
from quadbench.farm.condor import read_ad
from quadbench.farm.dag import JOB_DONE, JOB_FAILED, TRY_AGAIN
from quadbench.farm.job import Job, JobKind, JobState
from quadbench.farm.job_status import answers, listed_jobs
from quadbench.farm.jobs import FarmJobs, Start, locked_attempt
from quadbench.farm.store.opening import required_store
from quadbench.host import OWNER_VARIABLE, background
from quadbench.results.engine import begin_write, open_db
from quadbench.results.layout import Layout
from quadbench.results.records import Guard
from quadbench.spec.variables import set_variable

_PAUSE_S = 2.0  # between retries to store an attempt's outcome
_TICK_S = 1.0  # between looks at the clock, which show that the process stood still
_STOOD_STILL_S = 2.0
_BEATS = 4  # looks at the database in a lease's time
MACHINE_AD = ".machine.ad"  # HTCondor's name of the slot's ad, beside that of the job
LOG_NAME = "farm.log"
_MOST_LINES = 400  # last lines of the log that are kept of an attempt
_MOST_CHARACTERS = 400  # limit for one line

log = logging.getLogger(__name__)


def make_attempt(path: str) -> int:
    """Execute the job whose ad is the file `path`. Return 0 if it is done, 65 if it failed for good, 75 if it is tried again."""
    with suppress(PermissionError):  # a session's first process has a group of its own already
        os.setpgid(0, 0)
    try:
        start, address, results = read_order(Path(path))
        layout = Layout(results)
        with open_db(layout) as engine:
            job = FarmJobs(engine).begin(start)
            lines = log_attempt(layout.root / LOG_NAME, job)
            if job.state.is_end:
                return exit_code(job)
            set_variable(OWNER_VARIABLE, job.owner)
            guard = partial(locked_attempt, attempt=job)
            with stopped_when_over(engine, guard):
                ending = _made(job, address, layout, engine, guard)
            return _end(ending, lines)
    except QuadbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return JOB_FAILED if isinstance(error, UnknownNameError) else TRY_AGAIN  # its run was never submitted as a whole


def read_order(path: Path) -> tuple[Start, str, Path]:
    """Read a job's ad and, beside it, the ad of the slot where HTCondor has started the job. Return the start of the job, the
    address of the slot's device ("" if it has none), and the host's results folder.

    Raises:
        ArtifactError: an ad cannot be read, or the slot does not serve the job: its device has changed since they were matched.
    """
    job, slot = read_ad(path), read_ad(path.with_name(MACHINE_AD))
    number, start = job.get("QuadbenchJob"), job.get("NumShadowStarts")
    run, need, seat = job.get("QuadbenchRun"), job.get("QuadbenchNeed"), slot.get("SlotDevice")
    if not (isinstance(number, int) and isinstance(start, int)) or not all(isinstance(text, str) for text in (run, need, seat)):
        raise ArtifactError(f"'{path}' is no ad of a farm job at a slot of quadbench")
    if need not in str(slot.get("SlotServes")).split(","):
        raise ArtifactError(f"slot '{slot.get('Name')}' has '{seat}' now, which does not serve '{unquote(str(need))}'")
    results = Path(str(slot.get("QuadbenchResults") or "results"))
    host = str(slot.get("Machine") or "unknown")
    return Start(job=number, run=str(run), number=start, seat=str(seat), host=host), str(slot.get("SlotAddress") or ""), results


def exit_code(job: Job) -> int:
    """Return the exit code that tells HTCondor what came of a job: done, failed for good, or to be tried again."""
    return JOB_DONE if job.state is JobState.DONE else JOB_FAILED if job.state.is_end else TRY_AGAIN


class LogLines(logging.Handler):
    """A log handler that keeps the last lines of the log in memory."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a log record to the kept lines, with the time of day in UTC. Above 400 lines, drop the oldest line."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        self._lines.append(f"{at} {one_line(record.getMessage())[:_MOST_CHARACTERS]}")

    def text(self) -> str:
        """Return the log's last lines, which this handler keeps, as one text."""
        return "\n".join(self._lines)


def log_attempt(path: Path, job: Job) -> LogLines:
    """Append all log records to the file `path`, naming `job`. Return a LogLines, the handler that keeps the last 400 lines.
    Raise StorageError if the file cannot be written.
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


@contextmanager
def stopped_when_over(engine: sa.Engine, guard: Guard) -> Iterator[None]:
    """Call `guard` regularly in a `with` block. If `guard` raises AttemptOverError, kill the attempt's process group."""

    def watch(ended: threading.Event) -> None:
        ticked = checked = time.monotonic()
        while not ended.wait(_TICK_S):
            now = time.monotonic()
            if now - ticked > _STOOD_STILL_S or now - checked > lease_time_s() / _BEATS:
                checked = now
                try:
                    with begin_write(engine) as connection:
                        guard(connection)
                except AttemptOverError as error:
                    log.warning("%s", error)
                    os.killpg(0, signal.SIGKILL)
                except StorageError as error:
                    log.warning("whether the attempt goes on is not known: %s", error)
            ticked = now

    with background(watch, "quadbench-attempt"):
        yield


def _made(job: Job, address: str, layout: Layout, engine: sa.Engine, guard: Guard) -> Callable[..., Job]:
    """Execute a job. Return a function that stores its outcome, and the `lines` of its log, and returns the job."""
    jobs = FarmJobs(engine)
    try:
        host = Host(layout=layout, store=required_store(), observer=LogObserver(), guard=guard)
        run = listed_jobs(engine, job.run_id)
        needed = [other for other in run if other.id in job.after and other.kind is JobKind.COMPILE]
        raw = answers(engine, needed)
        answer = do(job, [answer_of(other, raw.get(other.id), CompileAnswer) for other in needed], address, host)
    except QuadbenchError as error:
        log.warning("failed: %s", error)
        is_transient = error.transient or isinstance(error, (DeviceError, StorageError))
        return partial(jobs.fail, job, str(error), is_transient=is_transient)
    except KeyboardInterrupt:
        log.info("stopped")
        return partial(jobs.give_back, job, "it was told to stop")
    return partial(jobs.finish, job, as_json(answer) if answer else None)


def _end(ending: Callable[..., Job], lines: LogLines) -> int:
    """Store an attempt's outcome, and return its exit code. If the database is unreachable, retry for one lease duration."""
    deadline = time.monotonic() + lease_time_s()
    while True:
        try:
            return exit_code(ending(lines=lines.text()))
        except AttemptOverError as error:
            log.warning("%s", error)
            return TRY_AGAIN
        except StorageError as error:
            if time.monotonic() > deadline:
                log.error("the end of the attempt is not stored: %s", error)
                return TRY_AGAIN
            log.warning("the end of the attempt is not stored yet: %s", error)
            time.sleep(_PAUSE_S)


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
