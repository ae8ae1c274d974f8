"""Show: a stored run -> its figures and its result on the terminal again; nothing is written."""

import argparse
from typing import Any

from quadbench.cli.conditions import add_baseline, baseline_of
from quadbench.cli.options import add_command
from quadbench.cli.result import add_full, print_result
from quadbench.report.launches import devices_of
from quadbench.results.runs import load_run


def add(commands: Any) -> None:
    """Add `quadbench show` to the commands."""
    parser = add_command(commands, "show", run)
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="the run (default: the latest that came to its end)")
    add_full(parser)
    add_baseline(parser)


def run(options: argparse.Namespace) -> int:
    result = load_run(options.layout, options.run_id)
    path = options.layout.report(result.run_id)
    tasks, addresses = [task.name for task in result.bundle.tasks], [device.address for device in devices_of(result)]
    baseline = baseline_of(options, tasks, addresses, result.run_id)
    print_result(options, result, path if path.is_file() else None, baseline=baseline)
    return 0
