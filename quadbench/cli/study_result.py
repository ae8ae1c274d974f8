"""Study result: a sweep or a comparison -> its tables on the terminal, what came of it last, and where it lies; or as JSON."""

import argparse
from dataclasses import asdict

from rich.console import Console

from quadbench.cli.console import print_json, print_text, stdout_console
from quadbench.cli.options import next_command
from quadbench.cli.text_tables import print_in_parts, print_text_table
from quadbench.errors import UserError
from quadbench.report import Sweep, sweep_answer, sweep_tables
from quadbench.report.figure_table import TextTable
from quadbench.report.study_documents import study_document
from quadbench.report.study_html import study_report
from quadbench.report.sweep_answer import settling
from quadbench.report.versus import Versus, answer, difference_table, side_table
from quadbench.study.studies import Study, find_study, read_study


def study_of(options: argparse.Namespace) -> Study | None:
    """Return the sweep or the comparison whose id was given in place of a run's; None where it is none, or none was given.

    Raises:
        UserError: conditions or a baseline were given too, which are of runs.
        ArtifactError: it is damaged.
    """
    path = find_study(options.layout, options.run_id) if options.run_id else None
    if path is None:
        return None
    if options.baseline or getattr(options, "fail_if", None):
        raise UserError(
            f"'{options.run_id}' is a {path.stem}; expected a run with --baseline and --fail-if", hint="name one of its runs"
        )
    return read_study(path)


def print_study(options: argparse.Namespace, study: Study) -> None:
    """Print a study, and where its data and its report lie."""
    report = study_report(study, options.layout)
    if options.json:
        print_json(asdict(study_document(study, report.parent)))
        return
    console = stdout_console()
    if isinstance(study, Sweep):
        _print_tables(console, sweep_tables(study, is_whole=options.full), len(study.keys))
        said, next_words = sweep_answer(study), settling(study)
    else:
        _print_compared(console, study)
        said = answer(study)
        next_words = study.settling if study.is_stored else ()
    for told in said:
        console.print(told, style="bold", highlight=False)
    if next_words:
        print_text(f"next: {next_command(options, *next_words)} launches both in turn, which settles their times")
    print_text(f"data: {report.with_suffix('.json')}")
    again = next_command(options, "report", report.parent.name)
    print_text(f"report: {report}" if report.is_file() else f"no report yet; {again} writes it")


def _print_tables(console: Console, tables: tuple[TextTable, ...], keys: int) -> None:
    """Print a table for each task and device, and the notes of all tables once, at the end."""
    for table in tables:
        print_in_parts(console, table, keys)
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        print_text(note)


def _print_compared(console: Console, compared: Versus) -> None:
    """Print the sides, and the tables of every device."""
    print_text(f"A: {compared.a}\nB: {compared.b}")
    for device in compared.devices:
        for table in (difference_table(device), side_table(device)):
            if table.rows:
                print_text_table(console, table)
        for caveat in device.caveats:
            print_text(f"{caveat.words}: {caveat.advice}")
