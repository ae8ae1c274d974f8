"""Console: what happens during a run -> lines and progress bars on stderr, tables on stdout."""

import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from quadbench.artifacts import Deployment, RunRecord, RunResult, Status
from quadbench.devices import DeviceRow
from quadbench.doctor import Check
from quadbench.plan import LaunchPlan
from quadbench.report import kpi_table

if TYPE_CHECKING:
    from quadbench.quad.divergence import Score
    from quadbench.quad.sensitivity import Agreement, Sensitivity

WIDE = 120  # characters that a table with all of its columns takes
WORST_SITES = 5
_MIB = 2**20


class RunConsole:
    """The pipeline's observer: one line for each stage, a bar for each device while it is pushed to or measured."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._last_stage = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, stage: str, detail: str) -> None:
        """A stage goes on to its next step; bars show the step, the log only the stage."""
        with self._lock:
            if stage != self._last_stage:
                self._last_stage = stage
                self._console.print(f"[bold]{stage}[/]", highlight=False)
            self._set(stage, detail, None)

    def reused(self, stage: str, digest: str) -> None:
        with self._lock:
            self._console.print(f"[bold]{stage}[/] unchanged, reused ({digest[:12]})", highlight=False)

    def sent(self, device: str, sent_bytes: int, total_bytes: int) -> None:
        with self._lock:
            amount = f"{sent_bytes / _MIB:.1f} of {total_bytes / _MIB:.1f} MB"
            self._set(f"push {device}", amount, sent_bytes / total_bytes if total_bytes else 1.0)

    def deployed(self, deployment: Deployment) -> None:
        with self._lock:
            self._drop(f"push {deployment.device.address}")
            sent = f"{deployment.sent_bytes / _MIB:.1f} MB sent" if deployment.sent_bytes else "0 bytes sent"
            self._console.print(
                f"[bold]push[/] {deployment.device.address}: {sent}, {deployment.present_bytes / _MIB:.1f} MB there already, "
                f"{deployment.seconds:.1f} s",
                highlight=False,
            )

    def launch(self, device: str, launch: LaunchPlan, number: int, total: int) -> None:
        with self._lock:
            self._set(f"measure {device}", f"launch {number} of {total}: {launch.variant}", (number - 1) / total)

    def record(self, record: RunRecord) -> None:
        with self._lock:
            seconds = (record.ended_at - record.started_at).total_seconds()
            colour = "green" if record.status is Status.OK else "red"
            reason = f": {record.reason}" if record.reason else ""
            name = f"{record.device.address}, {record.variant} {record.launch}"
            self._console.print(
                f"[bold]measure[/] {name}: [{colour}]{record.status}[/] in {seconds:.1f} s{reason}", highlight=False
            )

    def _set(self, name: str, amount: str, share: float | None) -> None:
        if name not in self._bars:
            for other in [n for n in self._bars if n.split()[0] != name.split()[0]]:
                self._drop(other)
            self._bars[name] = self._progress.add_task(name, total=None if share is None else 1.0, amount=amount)
        self._progress.update(self._bars[name], completed=share or 0.0, amount=amount)

    def _drop(self, name: str) -> None:
        if name in self._bars:
            self._progress.remove_task(self._bars.pop(name))


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


def print_sensitivity(console: Console, found: "Sensitivity") -> None:
    """A table for each adapter: all of it, each step, the sites that cost most when rounded alone; then what follows."""
    for one in found.adapters:
        shown = Table(
            title=f"{one.adapter}, {found.lora}, under encodings of its own",
            title_justify="left",
            header_style="bold",
            box=SIMPLE_HEAD,
        )
        for column in ("rounded", "JS", "MSE", "SQNR dB", "samples"):
            shown.add_column(column, justify="left" if column == "rounded" else "right", overflow="fold")
        error = "" if one.js_standard_error is None else f" ± {one.js_standard_error:.2g}"
        shown.add_row(Text("all sites (QSS)", style="bold"), *_score_cells(one.score, error))
        shown.add_section()
        for step in one.steps:
            shown.add_row(f"{step.task}, step {step.step}, t = {step.timestep:g}", *_score_cells(step.score))
        shown.add_section()
        for site in one.sites[:WORST_SITES]:
            shown.add_row(site.site, *_score_cells(site.score))
        console.print(shown)
        console.print(f"order of its {len(one.sites)} sites: {_agreement(one.site_agreement)}\n", highlight=False)
    console.print(f"order of the adapters: {_agreement(found.agreement)}", highlight=False)
    console.print(f"anchor: {found.choice.anchor or 'none, take unified'}; {found.choice.reason}", highlight=False)


def _score_cells(score: "Score", error: str = "") -> tuple[str, ...]:
    sqnr_db = "no noise" if score.sqnr_db is None else f"{score.sqnr_db:.1f}"
    return f"{score.js:.3g}{error}", f"{score.mse:.3g}", sqnr_db, str(score.samples)


def _agreement(agreement: "Agreement") -> str:
    mse, sqnr = (("undefined" if tau is None else f"{tau:.2f}") for tau in (agreement.mse, agreement.sqnr))
    return f"Kendall's tau of JS with MSE {mse}, with SQNR {sqnr}"


def print_devices(console: Console, rows: Sequence[DeviceRow]) -> None:
    shown = Table(header_style="bold")
    for column in ("address", "serial", "state", "model", "profile"):
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(row.address, row.serial, row.state, row.model, row.profile or "no profile matches")
    console.print(shown)


def print_checks(console: Console, checks: Sequence[Check]) -> None:
    """What `doctor` found; the hints of what is missing below."""
    shown = Table(header_style="bold")
    for column in ("", "what", "found", "needed for"):
        shown.add_column(column, overflow="fold")
    for check in checks:
        mark = "[green]ok[/]" if check.is_ok else ("[red]missing[/]" if check.is_required else "[yellow]absent[/]")
        shown.add_row(mark, check.name, check.found or "-", check.purpose)
    console.print(shown)
    for check in checks:
        if not check.is_ok and check.hint:
            console.print(Text(f"{check.name}: {check.hint}"))


def print_error(message: str) -> None:
    """On stderr, as it is: nothing in a message is markup."""
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True, highlight=False)


def print_text(text: str) -> None:
    """On stdout, unwrapped."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def print_json(value: Any) -> None:
    """On stdout; dates and paths as text."""
    print_text(json.dumps(value, indent=1, default=str))
