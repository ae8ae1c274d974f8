"""Report: a stored run -> its report written again and its figures on the terminal, or, and nothing written, for elsewhere."""

import argparse
from typing import Any

from quadbench.cli.console import print_text
from quadbench.cli.options import add_command
from quadbench.cli.result import add_full, print_result
from quadbench.report import text_tables, to_csv, to_latex, to_markdown, write_report
from quadbench.results.runs import load_run


def add(commands: Any) -> None:
    """Add `quadbench report` to the commands."""
    parser = add_command(commands, "report", run)
    parser.add_argument("run_id", nargs="?", help="the run (default: the latest that came to its end)")
    add_full(parser)
    parser.add_argument(
        "--format", choices=("table", "csv", "markdown", "latex"), default="table", help="how the figures are printed"
    )


def run(options: argparse.Namespace) -> int:
    result = load_run(options.layout, options.run_id)
    match options.format:
        case "csv":
            print_text(to_csv(result))
        case "markdown":
            print_text("\n".join(map(to_markdown, text_tables(result))))
        case "latex":
            print_text("\n".join(map(to_latex, text_tables(result))))
        case _:
            print_result(options, result, write_report(result, options.layout))
    return 0
