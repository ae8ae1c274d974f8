"""Print the result of a run, a sweep or a comparison as tables or JSON, and check the conditions of `--fail-if`."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quadbench.artifacts import RunResult
from quadbench.cli.console import print_error, print_json, print_parts, print_text, print_text_table, stdout_console
from quadbench.cli.options import Options, next_command
from quadbench.errors import ConditionError, UserError
from quadbench.report.condition import Criterion, read_condition
from quadbench.report.formatting import RATIO, SIDES, rough_times, show
from quadbench.report.headline import plain_text
from quadbench.report.html import study_report
from quadbench.report.kpi import Figure, KpiRow
from quadbench.report.run_line import ComparisonDocument, RunList, SweepDocument, study_document
from quadbench.report.sweep import Sweep
from quadbench.report.sweep_answer import settling_command, sweep_answer, sweep_tables
from quadbench.report.tables import kpi_table
from quadbench.report.versus import answer, difference_table, side_table
from quadbench.report.view import ReportView, RunSummary, run_summary
from quadbench.study.stored_studies import Study, find_study, read_study


def print_result(options: Options, view: ReportView, path: Path | None, conditions: Sequence[Criterion] = ()) -> int:
    """Print a run's values as tables or JSON, and its report's path. Return 8 if a `--fail-if` condition is true, else 0."""
    summary = run_summary(view, str(path) if path else None, conditions, has_launches=options.json)
    if options.json:
        print_json(summary)
    else:
        _print_tables(options, view, path)
    return print_conditions(summary)


def print_conditions(summary: RunSummary) -> int:
    """Print the conditions of `--fail-if` that hold. Return exit code 8 if there are any, else 0."""
    for met in summary.conditions_met:
        print_error(f"--fail-if {met}")
    return ConditionError.exit_code if summary.conditions_met else 0


def _print_tables(options: Options, view: ReportView, path: Path | None) -> None:
    console, result = stdout_console(), view.result
    if view.ran:
        print_text_table(console, replace(view.ran, title="What each device ran", notes=()))
    if options.full:
        _print_kpis(console, result)
    else:
        _print_glance(console, view)
        console.print(f"{SIDES} {RATIO}", highlight=False, markup=False)
    for doubt in view.doubts:
        console.print(Text.assemble((doubt.caveat.label, "yellow"), f": {doubt.caveat.doubt}"), highlight=False)
    for number, sentence in enumerate((*(plain_text([sentence]) for sentence in view.headline), *view.gaps)):
        console.print(sentence, style=None if number else "bold", highlight=False, markup=False)
    if view.next_step:
        console.print(f"next: {view.next_step}", highlight=False, markup=False)
    print_text(f"report: {path}" if path else f"no report yet; {next_command(options, 'report', result.run_id)} writes it")


def _print_glance(console: Console, view: ReportView) -> None:
    """Print a run's main measured values, one per row, grouped by device and task."""
    bundle, swept = view.result.bundle, ", ".join(f"{key}={value}" for key, value in view.result.swept.items())
    recipe, precisions = f"{bundle.recipe_name} ({bundle.recipe_digest[:12]})", " and ".join(view.precisions)
    title = ", ".join(filter(None, (recipe, precisions, swept, f"run {view.result.run_id}")))
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("Figure", overflow="fold")
    for name in ("Shared", "Per-graph", "Ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for glance in view.glance:
        table.add_section()
        table.add_row(f"{glance.task} on {glance.device.address}", style="bold")
        for row in glance.rows:
            ratio = "" if row.ratio is None else rough_times(row.ratio)
            table.add_row(f"{row.title}, {row.unit}", _cell(row, row.shared), _cell(row, row.per_graph), ratio)
    console.print(table)


def _cell(row: KpiRow, cell: Figure | str) -> str:
    return show(cell.value, row.unit) if isinstance(cell, Figure) else "–"


def _print_kpis(console: Console, result: RunResult) -> None:
    """For each device, print a table of a run's measured values, without their spread. Then print the tables' footnotes."""
    notes: dict[str, None] = {}
    for address in dict.fromkeys(record.device.address for record in result.records):
        records = tuple(record for record in result.records if record.device.address == address)
        deployments = tuple(deployment for deployment in result.deployments if deployment.device.address == address)
        table = kpi_table(replace(result, records=records, deployments=deployments), is_whole=False)
        kept = [i for i, name in enumerate(table.columns) if name not in ("Task", "Doubts")]
        task = table.columns.index("Task")
        shown = Table(title=table.title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        for i in kept:
            shown.add_column(table.columns[i], justify="right" if table.numeric[i] else "left")
        for name, rows in groupby(table.rows, key=lambda row: row[task]):
            shown.add_section()
            shown.add_row(name, style="bold")
            for row in rows:
                shown.add_row(*(row[i] for i in kept))
        console.print(shown)
        notes |= dict.fromkeys(table.notes)
    for note in notes:
        console.print(note, highlight=False)


def study_of(options: Options) -> Study | None:
    """Return the stored sweep or comparison whose id the command line gives. Return None if it gives a run's id or no id."""
    path = find_study(options.layout, options.run_id) if options.run_id else None
    if path is None:
        return None
    if getattr(options, "fail_if", None):
        raise UserError(f"'{options.run_id}' is a {path.stem}; expected a run with --fail-if", hint="name one of its runs")
    return read_study(path)


def print_study(options: Options, study: Study) -> None:
    """Print a stored sweep or comparison as tables or JSON, with the paths of its data and its report."""
    page = study_report(study, options.layout)
    if options.json:
        print_json(study_document(study, page.parent))
        return
    console = stdout_console()
    if isinstance(study, Sweep):
        tables = sweep_tables(study, is_whole=options.full)
        for table in tables:
            print_parts(console, table, len(study.keys))
        for note in dict.fromkeys(note for table in tables for note in table.notes):
            print_text(note)
        sentences, next_words = sweep_answer(study), settling_command(study)
    else:
        print_text(f"A: {study.a}\nB: {study.b}")
        for device in study.devices:
            for table in (difference_table(device), side_table(device)):
                if table.rows:
                    print_text_table(console, table)
            for caveat in device.caveats:
                print_text(f"{caveat.label}: {caveat.advice}")
        sentences = answer(study)
        next_words = study.settling_command if study.is_stored else ()
    for sentence in sentences:
        console.print(sentence, style="bold", highlight=False)
    if next_words:
        print_text(f"next: {next_command(options, *next_words)} launches both in turn, to decide which is faster")
    print_text(f"data: {page.with_suffix('.json')}")
    again = next_command(options, "report", page.parent.name)
    print_text(f"report: {page}" if page.is_file() else f"no report yet; {again} writes it")


def document_schemas() -> dict[str, dict[str, Any]]:
    """Return a dict from the name of what `--json` prints, such as `run`, to its JSON schema. Schemas allow unknown keys."""
    from pydantic import TypeAdapter

    from quadbench.nightly.history_formats import CaseDocument
    from quadbench.report.night_formats import NightDocument

    documents: dict[str, type[Any]] = {
        "comparison": ComparisonDocument,
        "history": CaseDocument,
        "night": NightDocument,
        "run": RunSummary,
        "runs": RunList,
        "sweep": SweepDocument,
    }
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schemas = {name: TypeAdapter(document).json_schema(mode="serialization") for name, document in documents.items()}
    return {name: {"$schema": dialect, **schema} for name, schema in schemas.items()}


def add_fail_if(parser: argparse.ArgumentParser) -> None:
    """Add the repeatable option `--fail-if` to a command. The command exits with code 8 if a given condition is true."""
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="EXPR",
        help="exit with code 8 if this is true, for example 'shared.end_to_end_ms.p50 > 200' (docs/commands.md); can be repeated",
    )


def conditions_of(options: Options, tasks: Iterable[str]) -> Sequence[Criterion]:
    """Parse the values of `--fail-if` to a list of Criterion. `tasks` are the task names that the conditions may contain."""
    names = tuple(tasks)
    return [read_condition(text, names) for text in options.fail_if]
