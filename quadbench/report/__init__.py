"""Report: RunResult -> one HTML file, KPI tables as text, CSV, Markdown and LaTeX."""

from quadbench.report.html import render_html, write_report
from quadbench.report.kpi import Figure, KpiRow, kpi_rows
from quadbench.report.scores import score_notes, score_tables
from quadbench.report.tables import Table, kpi_table, to_csv, to_latex, to_markdown
from quadbench.report.units import Unit
from quadbench.report.view import ReportView, report_view

__all__ = [
    "Figure",
    "KpiRow",
    "ReportView",
    "Table",
    "Unit",
    "kpi_rows",
    "kpi_table",
    "render_html",
    "report_view",
    "score_notes",
    "score_tables",
    "to_csv",
    "to_latex",
    "to_markdown",
    "write_report",
]
