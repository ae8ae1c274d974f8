"""Prometheus metrics of the farm's jobs, leases and phones, served at a local port. HTCondor's own are its exporters' matter."""

import logging
from collections import Counter
from collections.abc import Iterable

import sqlalchemy as sa
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from quadbench.devices.lab.inventory import Inventory
from quadbench.devices.lab.leases import Leases
from quadbench.errors import ArtifactError, UserError
from quadbench.farm.job import JobState
from quadbench.farm.job_status import job_counts

log = logging.getLogger(__name__)


class FarmMetrics(Collector):
    """Prometheus metrics of the farm from its database. If the database fails, only `quadbench_database_up` (0) is served."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        """Return the farm's metrics, read from the database now."""
        up = GaugeMetricFamily("quadbench_database_up", "1 where the farm's database is reached.")
        jobs = GaugeMetricFamily("quadbench_jobs", "Jobs of the farm.", labels=["state"])
        leases = GaugeMetricFamily("quadbench_leases", "Devices that a job or a person has.", labels=["holder"])
        seen = GaugeMetricFamily("quadbench_phones", "Phones that were ever seen.", labels=["health", "state"])
        try:
            states, standing = job_counts(self._engine).states, Leases(self._engine).standing().values()
            phones = Inventory(self._engine).phones()
        except ArtifactError as error:
            log.warning("no metrics of the farm: %s", error)
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        for state in JobState:
            jobs.add_metric([state.value], states.get(state.value, 0))
        leases.add_metric(["job"], sum(claims.job is not None for claims in standing))
        leases.add_metric(["person"], sum(claims.reservation is not None for claims in standing))
        for (health, state_of), count in Counter((phone.condition.health.value, phone.seen.state) for phone in phones).items():
            seen.add_metric([health, state_of], count)
        return [up, jobs, leases, seen]


def serve(port: int, *collectors: Collector) -> None:
    """Serve Prometheus metrics at a port of localhost until this process ends.

    Raises:
        UserError: the port is in use, or not permitted for this user.
    """
    for collector in collectors:
        REGISTRY.register(collector)
    try:
        start_http_server(port, addr="127.0.0.1")
    except OSError as error:
        raise UserError(f"metrics cannot be told at port {port}: {error.strerror}", hint="name another one") from error
