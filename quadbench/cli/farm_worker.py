"""Farm worker: this host's devices and the farm -> jobs done here until it is told to stop."""

import argparse
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from quadbench.cli.options import add_action, split_list
from quadbench.errors import extra_needed, shown
from quadbench.farm.store.opening import required_store, store_of
from quadbench.farm.workers import NewWorker, Workers
from quadbench.host import host_name
from quadbench.results.engine import database_of, name_of, open_engine

if TYPE_CHECKING:
    from quadbench.dispatch.worker import Worker

_LONGEST_NAME = 100

log = logging.getLogger(__name__)


def add(actions: Any) -> None:
    """Add `quadbench farm worker`."""
    parser = add_action(actions, "worker", run, "do the farm's jobs on this host, with its attached phones; SIGTERM drains it")
    parser.add_argument("--name", type=_name, help="the worker's name (default: that of the host)")
    parser.add_argument(
        "--devices", default="", metavar="A,B", help="devices beside attached phones: local, virtual:s25 (default: none)"
    )
    parser.add_argument("--metrics", type=_port, metavar="PORT", help="answer Prometheus at this port, on this host alone")
    parser.add_argument("--log-json", action="store_true", help="log JSON, an object a line")


def run(options: argparse.Namespace) -> int:
    with extra_needed("farm"):
        from quadbench.dispatch.metrics import FarmMetrics, WorkerMetrics, serve
    from quadbench.dispatch.attempt import Workplace
    from quadbench.dispatch.log_lines import log_to_stderr
    from quadbench.dispatch.offers import Offers, capabilities, given_device
    from quadbench.dispatch.worker import Worker

    given = [given_device(address) for address in split_list(options.devices)]
    source, store = database_of(options.layout), store_of()
    required_store()
    log_to_stderr(as_json=options.log_json)
    here = host_name()
    itself = NewWorker(
        name=options.name or here, host=here, version=version("quadbench"), capabilities=capabilities(), devices=()
    )
    with ExitStack() as stack:
        engine = open_engine(source)
        stack.callback(engine.dispose)
        metrics = WorkerMetrics()
        if options.metrics is not None:
            stack.callback(serve(options.metrics, FarmMetrics(engine)))
        devices = stack.enter_context(Offers(given, engine, options.layout))
        tell(itself, [device.name for device in devices.present], engine)
        workplace = Workplace(layout=options.layout, database=source, store=store or "", logs_json=options.log_json)
        worker = Worker(itself, engine, devices, workplace.carry_out, metrics)
        stack.enter_context(_stopped_by_signals(worker))
        worker.work()
    return 0


def tell(itself: NewWorker, devices: Sequence[str], engine: sa.Engine) -> None:
    """Say in the log what this worker takes jobs for, and whether another may have its name, which must be one worker's alone."""
    namesakes = [one for one in Workers(engine).known() if one.worker.name == itself.name and one.is_here]
    for one in namesakes:
        log.warning(
            "a worker '%s' on host '%s' was here at %s: if it still runs, give one of the two another --name",
            *(itself.name, one.worker.host, f"{one.last_seen:%H:%M:%S} UTC"),
        )
    takes = ", ".join((*itself.capabilities, *devices)) or "nothing: no device is here, and nothing can be built or compiled"
    log.info("worker '%s' of quadbench %s takes jobs of %s for: %s", itself.name, itself.version, name_of(engine), takes)


@contextmanager
def _stopped_by_signals(worker: "Worker") -> Iterator[None]:
    """Have SIGTERM and Ctrl-C stop the worker, each time as if it were told so."""
    taken = {number: signal.signal(number, lambda *_: worker.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"{shown(text)} names no worker; expected 1 to {_LONGEST_NAME} printable characters")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected 1 to 65535")
    return int(text)
