"""Report: a stored run, sweep or comparison -> its report again and its figures printed, or only these, for elsewhere."""

import argparse
from collections.abc import Callable
from typing import Any

from quadbench.artifacts import RunResult
from quadbench.cli.conditions import add_baseline, add_fail_if, baseline_of, conditions_of, wanted_as
from quadbench.cli.console import print_text
from quadbench.cli.options import add_command
from quadbench.cli.result import add_full, print_conditions, print_result
from quadbench.cli.study_result import print_study, study_of
from quadbench.errors import UserError
from quadbench.report import (
    Sweep,
    report_view,
    run_summary,
    sweep_csv,
    sweep_tables,
    text_tables,
    to_csv,
    to_latex,
    to_markdown,
    write_report,
)
from quadbench.report.study_html import write_study_report
from quadbench.report.versus import Versus, side_table, versus_csv
from quadbench.results.runs import keep_run, load_run


def add(commands: Any) -> None:
    """Add `quadbench report` to the commands."""
    parser = add_command(commands, "report", run)
    parser.add_argument(
        "run_id", nargs="?", metavar="ID", help="the run, sweep or comparison (default: the latest run that came to its end)"
    )
    add_full(parser)
    add_fail_if(parser)
    add_baseline(parser)
    parser.add_argument("--format", choices=("table", *_WRITERS), default="table", help="how the figures are printed")


def run(options: argparse.Namespace) -> int:
    if options.json and options.format != "table":
        raise UserError(f"--json and --format {options.format} exclude each other", hint="give one of them")
    if study := study_of(options):
        return _run_study(options, study)
    result = load_run(options.layout, options.run_id)
    wanted = wanted_as(result)
    conditions, baseline = conditions_of(options, wanted.tasks), baseline_of(options, wanted)
    if options.format == "table":
        keep_run(options.layout, result.run_id)
        return print_result(options, result, write_report(result, options.layout, baseline), conditions, baseline)
    print_text(_WRITERS[options.format](result))
    return print_conditions(run_summary(report_view(result, options.layout, baseline), None, conditions))


def _run_study(options: argparse.Namespace, study: Sweep | Versus) -> int:
    if options.format == "table":
        write_study_report(study, options.layout)
        print_study(options, study)
    elif options.format == "csv":
        print_text(sweep_csv(study) if isinstance(study, Sweep) else versus_csv(study))
    else:
        tables = sweep_tables(study) if isinstance(study, Sweep) else map(side_table, study.devices)
        print_text("\n".join(map(to_markdown if options.format == "markdown" else to_latex, tables)))
    return 0


_WRITERS: dict[str, Callable[[RunResult], str]] = {
    "csv": to_csv,
    "markdown": lambda result: "\n".join(map(to_markdown, text_tables(result))),
    "latex": lambda result: "\n".join(map(to_latex, text_tables(result))),
}
