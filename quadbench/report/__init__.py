"""Report: RunResult -> one HTML file, and its tables as text, CSV, Markdown, LaTeX, HTML and for pandas."""

from quadbench.report.cost_chart import cost_chart
from quadbench.report.figure_table import FigureTable, to_csv, to_frame
from quadbench.report.held_out import emulated_tables
from quadbench.report.html import render_html, write_report
from quadbench.report.kpi import Figure, KpiRow, kpi_rows
from quadbench.report.latex import to_latex
from quadbench.report.markup import to_html, to_markdown
from quadbench.report.run_tables import TABLE_NAMES, named_tables, text_tables
from quadbench.report.scores import score_notes, score_tables
from quadbench.report.summary import RunSummary, run_summary
from quadbench.report.sweep import Sweep, SweepFigure, SweepPoint, sweep_points
from quadbench.report.sweep_answer import sweep_answer
from quadbench.report.sweep_chart import sweep_chart
from quadbench.report.sweep_merits import with_best
from quadbench.report.sweep_tables import sweep_csv, sweep_tables
from quadbench.report.tables import kpi_table
from quadbench.report.text_table import TextTable
from quadbench.report.units import Unit, show, times
from quadbench.report.view import ReportView, report_view

__all__ = [
    "TABLE_NAMES",
    "Figure",
    "FigureTable",
    "KpiRow",
    "ReportView",
    "RunSummary",
    "Sweep",
    "SweepFigure",
    "SweepPoint",
    "TextTable",
    "Unit",
    "cost_chart",
    "emulated_tables",
    "kpi_rows",
    "kpi_table",
    "named_tables",
    "render_html",
    "report_view",
    "run_summary",
    "score_notes",
    "score_tables",
    "show",
    "sweep_answer",
    "sweep_chart",
    "sweep_csv",
    "sweep_points",
    "sweep_tables",
    "text_tables",
    "times",
    "to_csv",
    "to_frame",
    "to_html",
    "to_latex",
    "to_markdown",
    "with_best",
    "write_report",
]
