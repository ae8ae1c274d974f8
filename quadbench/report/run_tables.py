"""Run tables: a run and the name of a table -> that table of its figures, for whatever writes it."""

from collections.abc import Callable, Mapping, Sequence

from quadbench.artifacts import RunResult
from quadbench.errors import UnknownNameError, UserError
from quadbench.recipe.published import published_names
from quadbench.report.comparison import comparison_tables
from quadbench.report.figure_table import FigureTable
from quadbench.report.kpi import kpi_rows
from quadbench.report.pictures import quality_rows
from quadbench.report.published import MeasuredRun, published_beside
from quadbench.report.tables import kpi_figures
from quadbench.report.text_table import TextTable
from quadbench.report.ways import ways_views

KPI = "kpi"
_TABLES: Mapping[str, Callable[[RunResult], tuple[FigureTable, ...]]] = {
    KPI: lambda result: (kpi_figures(result),),
    "comparison": comparison_tables,
    "ways": lambda result: tuple(ways.table for ways in ways_views(result, kpi_rows(result))),
}
_NEEDS = {
    "comparison": "it takes a block of launches A B B A: measure.launches of 2 or more, and the baseline per-graph",
    "ways": "it takes more baselines than per-graph, as resident",
}
TABLE_NAMES = (*_TABLES, *published_names())


def named_tables(result: RunResult, name: str) -> tuple[FigureTable, ...]:
    """Return the table with a name, of `comparison` and `ways` one for each device; those of a name have the same fields.

    Raises:
        UnknownNameError: there is no such table.
        UserError: the run has nothing for it.
    """
    tables = _tables(result, name)
    if not tables:
        raise UserError(f"run {result.run_id} has nothing for the table '{name}'", hint=_NEEDS[name])
    return tables


def paper_table(results: Sequence[RunResult], name: str) -> FigureTable:
    """Return a table of the paper beside the figures of one run, or of those of a sweep.

    Raises:
        UnknownNameError: the paper has no such table.
    """
    runs = [MeasuredRun(result=result, kpis=kpi_rows(result), quality=quality_rows(result)) for result in results]
    return published_beside(runs, name)


def text_tables(result: RunResult) -> tuple[TextTable, ...]:
    """Return what a run has as tables of text: figures, then comparisons, ways to serve and the paper's table, where they are."""
    names = (*_TABLES, *((result.published,) if result.published else ()))
    return tuple(table.text for name in names for table in _tables(result, name))


def _tables(result: RunResult, name: str) -> tuple[FigureTable, ...]:
    if name not in TABLE_NAMES:
        raise UnknownNameError("table", name, TABLE_NAMES)
    if name in _TABLES:
        return _TABLES[name](result)
    return (paper_table([result], name),)
