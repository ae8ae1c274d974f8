"""Scripted worker: how many phones, the length of a job, a version -> a worker of this host that does scripted jobs."""

import signal
import sys

from quadbench.dispatch.log_lines import log_to_stderr
from quadbench.dispatch.metrics import WorkerMetrics
from quadbench.dispatch.worker import Worker
from quadbench.farm.workers import NewWorker
from quadbench.host import host_name
from quadbench.results.engine import DATABASE_VARIABLE, open_engine
from quadbench.spec import variable
from support.scripted_jobs import Script, phones

VERSION = "1"


def main(count: str, seconds: str, version: str = VERSION) -> None:
    log_to_stderr(as_json=False)
    name, database = host_name(), variable(DATABASE_VARIABLE) or ""
    itself = NewWorker(name=name, host=name, version=version, capabilities=(), devices=())
    script = Script(database=database, seconds=float(seconds))
    with script.attempts() as attempts:
        worker = Worker(itself, open_engine(database), phones(int(count), name), attempts.start, WorkerMetrics())
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        worker.work()


if __name__ == "__main__":
    main(*sys.argv[1:])
