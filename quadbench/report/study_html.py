"""Study report: a sweep or a comparison -> one self-contained HTML file, readable without script, the answer first."""

import shlex
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from quadbench.report.comparison_charts import forest_of, launch_chart
from quadbench.report.formatting import percent
from quadbench.report.headline import ELSEWHERE, cures, next_of_comparison
from quadbench.report.launches import in_order
from quadbench.report.page import page_environment, write_page
from quadbench.report.run_line import study_json
from quadbench.report.sweep import LEAST_DB, Sweep, is_flat
from quadbench.report.sweep_answer import settling, sweep_answer, sweep_tables
from quadbench.report.sweep_charts import cost_chart, sweep_chart
from quadbench.report.versus import Versus, answer, difference_table, is_decided
from quadbench.results.layout import Layout
from quadbench.statistics import EQUIVALENCE_MARGIN


def write_study_report(study: Sweep | Versus, layout: Layout) -> Path:
    """Write the report of a study into its folder, whole or not at all; return its path.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    return write_page(study_report(study, layout), render_study(study, layout.words))


def study_report(study: Sweep | Versus, layout: Layout) -> Path:
    """Return the path of the report of a study."""
    if isinstance(study, Sweep):
        return layout.sweep(study.sweep_id) / "sweep.html"
    return layout.comparison(study.comparison_id) / "comparison.html"


def render_study(study: Sweep | Versus, where: Sequence[str] = ()) -> str:
    """Return the report of a study as text; `where` are the words by which its commands come to the results folder."""

    def command(*words: str) -> str:
        return shlex.join(("quadbench", *words, *where))

    return _render_sweep(study, command) if isinstance(study, Sweep) else _render_comparison(study, command)


def _render_sweep(sweep: Sweep, command: Callable[..., str]) -> str:
    tables, caveats = sweep_tables(sweep), in_order(caveat for point in sweep.points for caveat in point.caveats)
    runs, words = {point.run_id: point.name for point in sweep.points}, settling(sweep)
    is_left_out = sweep.published is None and is_flat(sweep)
    doubts = {f"{caveat.words}: {caveat.advice}" for caveat in caveats}  # stand at the top
    return (
        _environment()
        .get_template("sweep.html.j2")
        .render(
            sweep=sweep,
            answer=sweep_answer(sweep),
            devices=tuple(dict.fromkeys(point.device for point in sweep.points)),
            caveats=caveats,
            runs=runs,
            cures=cures(caveats),
            command=command,
            settling=command(*words) if words else None,
            settled=[runs[word] for word in words if word in runs],
            least_db=LEAST_DB,
            margin=percent(EQUIVALENCE_MARGIN),
            charts=[Markup(chart) for chart in (cost_chart(sweep), None if is_left_out else sweep_chart(sweep)) if chart],
            is_left_out=is_left_out,
            telling=sweep_tables(sweep, is_whole=False),
            tables=tables,
            notes=tuple(dict.fromkeys(note for table in tables for note in table.notes if note not in doubts)),
            data=study_json(sweep),
        )
    )


def _render_comparison(versus: Versus, command: Callable[..., str]) -> str:
    charts = {device.device.address: launch_chart(device) for device in versus.devices}
    caveats = in_order(caveat for device in versus.devices for caveat in device.caveats)
    looks = [device.looks for device in versus.devices if device.looks]
    is_in_turn, is_elsewhere = bool(looks), not ELSEWHERE.isdisjoint(caveats)
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            versus=versus,
            answer=answer(versus),
            caveats=caveats,
            is_in_turn=is_in_turn,
            next_step=next_of_comparison(caveats, is_in_turn=is_in_turn, is_decided=all(map(is_decided, versus.devices))),
            command=command,
            next_command=command(*(versus.elsewhere if is_in_turn and is_elsewhere else versus.settling)),
            confidence=" or ".join(dict.fromkeys(percent(one.confidence) for one in looks)),
            margin=percent(max((one.margin for one in looks), default=EQUIVALENCE_MARGIN)),
            forest=forest_of(versus),
            charts={address: Markup(chart) for address, chart in charts.items() if chart},
            differences=[table for device in versus.devices if (table := difference_table(device)).rows],
            data=study_json(versus),
        )
    )


@cache
def _environment() -> Environment:
    return page_environment({})
