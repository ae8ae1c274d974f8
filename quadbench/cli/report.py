"""Report: a stored run -> its report written again and its figures on the terminal, or, and nothing written, for elsewhere."""

import argparse
from collections.abc import Callable
from typing import Any

from quadbench.artifacts import RunResult
from quadbench.cli.conditions import add_baseline, add_fail_if, baseline_of, conditions_of
from quadbench.cli.console import print_text
from quadbench.cli.options import add_command
from quadbench.cli.result import add_full, print_conditions, print_result
from quadbench.errors import UserError
from quadbench.report import report_view, run_summary, text_tables, to_csv, to_latex, to_markdown, write_report
from quadbench.report.launches import devices_of
from quadbench.results.runs import keep_run, load_run


def add(commands: Any) -> None:
    """Add `quadbench report` to the commands."""
    parser = add_command(commands, "report", run)
    parser.add_argument("run_id", nargs="?", help="the run (default: the latest that came to its end)")
    add_full(parser)
    add_fail_if(parser)
    add_baseline(parser)
    parser.add_argument("--format", choices=("table", *_WRITERS), default="table", help="how the figures are printed")


def run(options: argparse.Namespace) -> int:
    if options.json and options.format != "table":
        raise UserError(f"--json and --format {options.format} exclude each other", hint="give one of them")
    result = load_run(options.layout, options.run_id)
    tasks = [task.name for task in result.bundle.tasks]
    conditions = conditions_of(options, tasks)
    baseline = baseline_of(options, tasks, [device.address for device in devices_of(result)], result.run_id)
    if options.format == "table":
        keep_run(options.layout, result.run_id)
        return print_result(options, result, write_report(result, options.layout, baseline), conditions, baseline)
    print_text(_WRITERS[options.format](result))
    return print_conditions(run_summary(report_view(result, options.layout, baseline), None, conditions))


_WRITERS: dict[str, Callable[[RunResult], str]] = {
    "csv": to_csv,
    "markdown": lambda result: "\n".join(map(to_markdown, text_tables(result))),
    "latex": lambda result: "\n".join(map(to_latex, text_tables(result))),
}
