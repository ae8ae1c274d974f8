"""Start a host's attempts at farm jobs: run an attempt server, write job files, and start a client program per attempt."""

import logging
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quadbench.dispatch.attempt import AttemptOrder
from quadbench.dispatch.attempt_client import SERVER_VARIABLE
from quadbench.farm.job import Job
from quadbench.host import python_module, start_child
from quadbench.results.documents import write_document

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Starts a client process for each attempt at a farm job. The job is passed to that process as a JSON file in `folder`."""

    folder: Path
    results: Path
    logs_json: bool
    environment: Mapping[str, str]

    def start(self, job: Job, address: str) -> subprocess.Popen[bytes]:
        """Start an attempt at a job on device `address` ("" if none). Return the Popen of a client that ends with the attempt."""
        order = self.folder / f"{job.id}-{job.attempt}.json"
        write_document(order, AttemptOrder(job=job, address=address, results=self.results, logs_json=self.logs_json))
        return start_child(python_module("quadbench", "farm", "attempt", str(order)), env=self.environment)


@contextmanager
def serving_attempts(results: Path, *, logs_json: bool = False, runner: str | None = None) -> Iterator[Attempts]:
    """Run an attempt server in a `with` block; yield an Attempts. Tests pass a fake job function `module:name` as `runner`."""
    name = secrets.token_hex(8)
    words = (name, runner) if runner else (name,)
    server = start_child(python_module("quadbench.dispatch.attempt_server", *words), stdout=subprocess.PIPE)
    try:
        if server.stdout is not None and not server.stdout.readline():
            log.warning("the attempt server did not start: each attempt makes its imports itself, which takes seconds")
        with tempfile.TemporaryDirectory(prefix="quadbench-orders-") as folder:
            environment = {**os.environ, SERVER_VARIABLE: name}
            yield Attempts(folder=Path(folder), results=results.absolute(), logs_json=logs_json, environment=environment)
    finally:
        server.kill()
        server.communicate()
