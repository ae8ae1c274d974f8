"""Show: a stored run -> its figures and its result on the terminal again; nothing is written."""

import argparse
from typing import Any

from quadbench.cli.options import add_command
from quadbench.cli.result import add_full, print_result
from quadbench.results.runs import load_run


def add(commands: Any) -> None:
    """Add `quadbench show` to the commands."""
    parser = add_command(commands, "show", run)
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="the run (default: the latest that came to its end)")
    add_full(parser)


def run(options: argparse.Namespace) -> int:
    result = load_run(options.layout, options.run_id)
    path = options.layout.report(result.run_id)
    print_result(options, result, path if path.is_file() else None)
    return 0
