"""Prometheus metrics of a worker and of the farm's queue, leases and phones, served at a local port."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

import sqlalchemy as sa
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, start_http_server
from prometheus_client import Gauge as LiveGauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quadbench.errors import ArtifactError, UserError
from quadbench.farm.inventory import Inventory
from quadbench.farm.job import Job, JobState
from quadbench.farm.job_status import queue_status
from quadbench.farm.leases import Leases

_AGE_S = 5.0  # maximum age of the cached database values
_JOB_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 14_400)

log = logging.getLogger(__name__)


class WorkerMetrics:
    """Prometheus metrics of one worker: a gauge of running attempts and a histogram of attempt seconds, labelled by job kind."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._seconds = Histogram(
            "quadbench_attempt_seconds",
            "Time that attempts at jobs took here.",
            ["kind"],
            buckets=_JOB_SECONDS,
            registry=registry,
        )
        self._running = LiveGauge("quadbench_attempts_running", "Attempts that are being made here.", ["kind"], registry=registry)

    def begun(self, job: Job) -> None:
        """Add 1 to the gauge of running attempts for the kind of `job`."""
        self._running.labels(job.kind.value).inc()

    def ended(self, job: Job, seconds: float) -> None:
        """Subtract 1 from the gauge of running attempts. Add an attempt's `seconds` to the histogram of durations."""
        self._running.labels(job.kind.value).dec()
        self._seconds.labels(job.kind.value).observe(seconds)


class FarmMetrics(Collector):
    """Prometheus metrics of the farm from its database. If the database fails, only `quadbench_database_up` (0) is served."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._read_at, self._known = -_AGE_S, list[Metric]()

    def collect(self) -> Iterable[Metric]:
        """Return the farm's metrics, read from the database at most 5 s ago."""
        with self._lock:
            if time.monotonic() - self._read_at >= _AGE_S:
                self._known, self._read_at = list(self._read()), time.monotonic()
            return self._known

    def _read(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("quadbench_database_up", "1 where the farm's database is reached.")
        try:
            told = [self._jobs(), self._held(), self._phones()]
        except ArtifactError as error:
            log.warning("no metrics of the farm: %s", error)
            told = []
        up.add_metric([], float(bool(told)))
        return [up, *told]

    def _jobs(self) -> Metric:
        family = GaugeMetricFamily("quadbench_jobs", "Jobs in the queue.", labels=["state"])
        states = queue_status(self._engine).states
        for state in JobState:
            family.add_metric([state.value], states.get(state.value, 0))
        return family

    def _held(self) -> Metric:
        family = GaugeMetricFamily("quadbench_leases", "Devices that a job or a person has.", labels=["holder"])
        standing = Leases(self._engine).standing().values()
        family.add_metric(["job"], sum(claims.job is not None for claims in standing))
        family.add_metric(["person"], sum(claims.reservation is not None for claims in standing))
        return family

    def _phones(self) -> Metric:
        family = GaugeMetricFamily("quadbench_phones", "Phones that were ever seen.", labels=["health", "state"])
        phones = Inventory(self._engine).phones()
        for (health, state), count in Counter((phone.condition.health.value, phone.seen.state) for phone in phones).items():
            family.add_metric([health, state], count)
        return family


def serve(port: int, *collectors: Collector, registry: CollectorRegistry = REGISTRY) -> Callable[[], None]:
    """Serve Prometheus metrics at a port of localhost. Return a function without arguments or result that stops the server.

    Raises:
        UserError: the port is in use, or not permitted for this user.
    """
    for collector in collectors:
        registry.register(collector)
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise UserError(f"metrics cannot be told at port {port}: {error.strerror}", hint="name another one") from error

    def end() -> None:
        server.shutdown()
        thread.join()

    return end
