"""The command `report`: rewrite the report of a stored run, sweep or comparison, or print tables as CSV or Markdown."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from quadbench.cli import result
from quadbench.cli.console import print_text, print_text_table, stdout_console
from quadbench.cli.options import Options, Subparsers, add_command, add_full
from quadbench.errors import UserError
from quadbench.report.formatting import FigureTable, TextTable, to_csv, to_markdown
from quadbench.report.html import write_study_report, write_view
from quadbench.report.sweep import Sweep
from quadbench.report.sweep_answer import sweep_csv, sweep_tables
from quadbench.report.tables import KPI, TABLE_NAMES, named_tables, text_tables
from quadbench.report.versus import Versus, exported_tables, versus_csv
from quadbench.report.view import report_view, run_summary
from quadbench.results.stored_runs import COMPARISON, RUN, SWEEP, find_run, keep_run
from quadbench.study.stored_studies import study_table

_ON_SCREEN = "table"
_FORMATS = (_ON_SCREEN, "csv", "markdown")


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "report", run)
    parser.add_argument("run_id", nargs="?", metavar="ID", help="the run, sweep or comparison (default: the latest finished run)")
    add_full(parser)
    result.add_fail_if(parser)
    parser.add_argument("--format", choices=_FORMATS, default=_ON_SCREEN, help="the output format of the figures")
    parser.add_argument(
        "--table",
        choices=TABLE_NAMES,
        metavar="NAME",
        help=f"print only this table: {', '.join(TABLE_NAMES)}; for a sweep, only the paper's tables",
    )


def run(options: Options) -> int:
    if options.json and (options.format != _ON_SCREEN or options.table):
        other = f"--table {options.table}" if options.table else f"--format {options.format}"
        raise UserError(f"--json and {other} exclude each other", hint="give one of them")
    if study := result.study_of(options):
        return _run_study(options, study)
    with _without_garbage_collection():
        return _run_report(options)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Look for no garbage cycles in the block. Launch records form none, and looking through 100,000 takes seconds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _run_report(options: Options) -> int:
    stored = find_run(options.layout, options.run_id, RUN, SWEEP, COMPARISON)
    conditions = result.conditions_of(options, [task.name for task in stored.bundle.tasks])
    view = report_view(stored, options.layout)
    if options.format == _ON_SCREEN and not options.table:
        keep_run(options.layout, stored.run_id)
        return result.print_result(options, view, write_view(view, options.layout), conditions)
    if options.table or options.format == "csv":  # CSV has a single header, so only one table is printed
        _print_figures(named_tables(stored, options.table or KPI), options.format)
    else:
        _print_tables(text_tables(stored), options.format)
    return result.print_conditions(run_summary(view, None, conditions))


def _print_figures(tables: Sequence[FigureTable], written_as: str) -> None:
    if written_as == "csv":
        print_text(to_csv(tables))
    else:
        _print_tables((table.text for table in tables), written_as)


def _run_study(options: Options, study: Sweep | Versus) -> int:
    if options.table:
        _print_figures([study_table(study, options.table, options.layout)], options.format)
        return 0
    if options.format == _ON_SCREEN:
        write_study_report(study, options.layout)
        result.print_study(options, study)
    elif options.format == "csv":
        print_text(sweep_csv(study) if isinstance(study, Sweep) else versus_csv(study))
    else:
        _print_tables(sweep_tables(study) if isinstance(study, Sweep) else exported_tables(study), options.format)
    return 0


def _print_tables(tables: Iterable[TextTable], written_as: str) -> None:
    if written_as == _ON_SCREEN:
        for table in tables:
            print_text_table(stdout_console(), table)
    else:
        print_text("\n".join(map(to_markdown, tables)))
