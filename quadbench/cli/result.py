"""Result: a run and its report -> its figures on the terminal, or as JSON."""

import argparse
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from quadbench.artifacts import RunResult
from quadbench.cli.console import print_json, print_text, stdout_console
from quadbench.report import kpi_rows, kpi_table

_WIDE = 120  # characters that a table with all of its columns takes


def print_result(options: argparse.Namespace, result: RunResult, path: Path) -> None:
    """Print a run's figures and where its report lies, as tables or as JSON."""
    if options.json:
        records = [
            {"device": r.device.address, "variant": r.variant, "launch": r.launch, "status": r.status, "reason": r.reason}
            for r in result.records
        ]
        rows = [asdict(row) for row in kpi_rows(result)]
        print_json({"run_id": result.run_id, "report": str(path), "records": records, "kpis": rows})
    else:
        _print_kpis(stdout_console(), result)
        print_text(f"report: {path}")


def _print_kpis(console: Console, result: RunResult) -> None:
    """Print a table for each device, with the spread of the figures if the console is wide; the notes once, at the end."""
    notes: dict[str, None] = {}
    for address in dict.fromkeys(record.device.address for record in result.records):
        table = kpi_table(_of_device(result, address), with_spread=console.width >= _WIDE)
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
