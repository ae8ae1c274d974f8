"""Report: a stored run -> its report written again, and its figures on the terminal or for elsewhere."""

import argparse
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quadbench.artifacts import RunResult
from quadbench.cli.console import print_json, print_text, stdout_console
from quadbench.cli.options import add_command
from quadbench.report import kpi_rows, kpi_table, to_csv, to_latex, to_markdown, write_report
from quadbench.results.runs import load_run

WIDE = 120  # characters that a table with all of its columns takes


def add(commands: Any) -> None:
    """`quadbench report`."""
    parser = add_command(commands, "report", run)
    parser.add_argument("run_id", nargs="?", help="the run (default: the latest)")
    parser.add_argument(
        "--format", choices=("table", "csv", "markdown", "latex"), default="table", help="how the figures are printed"
    )


def run(options: argparse.Namespace) -> int:
    result = load_run(options.layout, options.run_id)
    path = write_report(result, options.layout)
    match options.format:
        case "csv":
            print_text(to_csv(result))
        case "markdown":
            print_text(to_markdown(kpi_table(result)))
        case "latex":
            print_text(to_latex(kpi_table(result)))
        case _:
            print_result(options, result, path)
    return 0


def print_result(options: argparse.Namespace, result: RunResult, path: Path) -> None:
    """A run's figures and where its report lies."""
    if options.json:
        records = [
            {"device": r.device.address, "variant": r.variant, "launch": r.launch, "status": r.status, "reason": r.reason}
            for r in result.records
        ]
        rows = [asdict(row) for row in kpi_rows(result)]
        print_json({"run_id": result.run_id, "report": str(path), "records": records, "kpis": rows})
    else:
        print_kpis(stdout_console(), result)
        print_text(f"report: {path}")


def print_kpis(console: Console, result: RunResult) -> None:
    """The run's figures, a table for each device; how they spread only where there is room. The notes once, at the end."""
    notes: dict[str, None] = {}
    for address in dict.fromkeys(record.device.address for record in result.records):
        table = kpi_table(_of_device(result, address), with_spread=console.width >= WIDE)
        kept = [i for i, name in enumerate(table.columns) if name not in ("Task", "Doubts")]
        task = table.columns.index("Task")
        shown = Table(title=table.title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        for i in kept:
            shown.add_column(table.columns[i], justify="right" if table.numeric[i] else "left")
        for name, rows in groupby(table.rows, key=lambda row: row[task]):
            shown.add_section()
            shown.add_row(Text(name, style="bold"))
            for row in rows:
                shown.add_row(*(row[i] for i in kept))
        console.print(shown)
        notes |= dict.fromkeys(table.notes)
    for note in notes:
        console.print(note, highlight=False)


def _of_device(result: RunResult, address: str) -> RunResult:
    return replace(
        result,
        records=tuple(record for record in result.records if record.device.address == address),
        deployments=tuple(deployment for deployment in result.deployments if deployment.device.address == address),
    )
