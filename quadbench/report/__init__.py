"""Report: RunResult -> one HTML file, and its tables as text, CSV, Markdown, LaTeX, HTML and for pandas."""

from quadbench.report.formats import to_html, to_latex, to_markdown
from quadbench.report.formatting import FigureTable, TextTable, Unit, show, times, to_csv, to_frame
from quadbench.report.html import render_html, write_report
from quadbench.report.kpi import Figure, KpiRow, kpi_rows
from quadbench.report.scores import emulated_tables, score_notes, score_tables
from quadbench.report.sweep import Sweep, SweepFigure, SweepPoint, sweep_points, with_best
from quadbench.report.sweep_answer import sweep_answer, sweep_csv, sweep_tables
from quadbench.report.sweep_charts import cost_chart, sweep_chart
from quadbench.report.tables import TABLE_NAMES, kpi_table, named_tables, text_tables
from quadbench.report.view import ReportView, RunSummary, report_view, run_summary

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
