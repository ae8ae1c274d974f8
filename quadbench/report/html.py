"""HTML reports of runs, sweeps and comparisons: one self-contained file each, with images and charts, without scripts."""

import shlex
from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from quadbench.artifacts import RunResult
from quadbench.artifacts.caveats import FigureKind
from quadbench.artifacts.pixels import png_size
from quadbench.artifacts.safe_text import one_line
from quadbench.harness.event_log import check_image_contents
from quadbench.report import formatting, run_charts
from quadbench.report.comparison_charts import forest_plot, launch_chart
from quadbench.report.formatting import Unit, percent
from quadbench.report.headline import ELSEWHERE, next_of_comparison, remedies
from quadbench.report.kpi import Figure, count, note_on, spread
from quadbench.report.page import page_environment
from quadbench.report.scores import Picture, difference_png
from quadbench.report.sweep import MIN_DB, Sweep, is_flat
from quadbench.report.sweep_answer import settling_command, sweep_answer, sweep_tables
from quadbench.report.sweep_charts import cost_chart, sweep_chart
from quadbench.report.versus import Versus, answer, difference_table, is_decided
from quadbench.report.view import MAX_NAMED, ReportView, report_view
from quadbench.results.disk import write_atomic
from quadbench.results.layout import Layout
from quadbench.statistics import EQUIVALENCE_MARGIN, MIN_BLOCKS

_SHOWN_WIDTH = 128
_CHARTS = (
    run_charts.storage_chart, run_charts.growth_chart, run_charts.time_chart, run_charts.trajectory_chart,
    run_charts.serving_modes_chart, run_charts.strip_chart, run_charts.memory_chart, run_charts.variant_legend,
)  # fmt: skip


def write_report(result: RunResult, layout: Layout) -> Path:
    """Write a run's HTML report to `reports/<run id>.html` and return the path. May raise StorageError or ArtifactError."""
    return write_view(report_view(result, layout), layout)


def write_view(view: ReportView, layout: Layout) -> Path:
    """Write a run's report atomically as HTML to `reports/<run id>.html` in the results folder. Return the file's path.

    Raises:
        StorageError: the folder is full or cannot be written.
        ArtifactError: an image is not the one that its launch wrote.
    """
    for record in view.result.records:
        check_image_contents(record, layout)
    path = layout.report(view.result.run_id)
    write_atomic(path, render_view(view), end="")
    return path


def render_html(result: RunResult, layout: Layout) -> str:
    return render_view(report_view(result, layout))


def render_view(view: ReportView) -> str:
    """Return a run's report as HTML text. Images are read from disk; a missing image is replaced by its file name."""
    page = _environment().get_template("report.html.j2")
    content = {"formatting": formatting, "min_blocks": MIN_BLOCKS, "most_named": MAX_NAMED}
    return page.render(view=view, **content)


def write_study_report(study: Sweep | Versus, layout: Layout) -> Path:
    """Write the HTML report of a sweep or comparison atomically, and return the report's path."""
    path = study_report(study, layout)
    write_atomic(path, render_study(study, layout.root_arguments), end="")
    return path


def study_report(study: Sweep | Versus, layout: Layout) -> Path:
    """Return the path of the HTML report of a sweep or comparison."""
    if isinstance(study, Sweep):
        return layout.sweep(study.sweep_id) / "sweep.html"
    return layout.comparison(study.comparison_id) / "comparison.html"


def render_study(study: Sweep | Versus, where: Sequence[str] = ()) -> str:
    """Return a sweep's or comparison's report as HTML text. Its commands end with `where`, such as `--results FOLDER`."""

    def command(*words: str) -> str:
        return shlex.join(("quadbench", *words, *where))

    return _render_sweep(study, command) if isinstance(study, Sweep) else _render_comparison(study, command)


def _render_sweep(sweep: Sweep, command: Callable[..., str]) -> str:
    tables, caveats = sweep_tables(sweep), sweep.caveats
    runs, words = {point.run_id: point.name for point in sweep.points}, settling_command(sweep)
    is_left_out = sweep.published is None and is_flat(sweep)
    doubts = {f"{caveat.label}: {caveat.advice}" for caveat in caveats}  # shown at the top of the page
    page = _environment().get_template("sweep.html.j2")
    return page.render(
        sweep=sweep,
        answer=sweep_answer(sweep),
        devices=tuple(dict.fromkeys(point.device for point in sweep.points)),
        caveats=caveats,
        runs=runs,
        cures=remedies(caveats),
        command=command,
        settling=command(*words) if words else None,
        settled=[runs[word] for word in words if word in runs],
        least_db=MIN_DB,
        margin=percent(EQUIVALENCE_MARGIN),
        charts=[Markup(chart) for chart in (cost_chart(sweep), None if is_left_out else sweep_chart(sweep)) if chart],
        is_left_out=is_left_out,
        telling=sweep_tables(sweep, is_whole=False),
        tables=tables,
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes if note not in doubts)),
    )


def _render_comparison(versus: Versus, command: Callable[..., str]) -> str:
    charts = {device.device.address: launch_chart(device) for device in versus.devices}
    caveats = versus.caveats
    looks = [device.looks for device in versus.devices if device.looks]
    is_in_turn, is_elsewhere = bool(looks), not ELSEWHERE.isdisjoint(caveats)
    page = _environment().get_template("comparison.html.j2")
    return page.render(
        versus=versus,
        answer=answer(versus),
        caveats=caveats,
        is_in_turn=is_in_turn,
        next_step=next_of_comparison(caveats, is_in_turn=is_in_turn, is_decided=all(map(is_decided, versus.devices))),
        command=command,
        next_command=command(*(versus.command_elsewhere if is_in_turn and is_elsewhere else versus.settling_command)),
        confidence=" or ".join(dict.fromkeys(percent(one.confidence) for one in looks)),
        margin=percent(max((one.margin for one in looks), default=EQUIVALENCE_MARGIN)),
        forest=forest_plot(versus),
        charts={address: Markup(chart) for address, chart in charts.items() if chart},
        differences=[table for device in versus.devices if (table := difference_table(device)).rows],
    )


@cache
def _environment() -> Environment:
    filters: dict[str, Callable[..., Any]] = {
        "mb": lambda value: formatting.show(value, Unit.MEGABYTES),
        "about": lambda caveats, *kinds: [caveat for caveat in caveats if caveat.is_about(*map(FigureKind, kinds))],
        "count": count,
        "spread": spread,
        "verdict_note": note_on,
        "picture": _picture,
        **{chart.__name__: lambda *of, chart=chart: Markup(chart(*of)) for chart in _CHARTS},
    }
    environment = page_environment(**filters)
    environment.tests |= {"figure": lambda cell: isinstance(cell, Figure), "text": lambda cell: isinstance(cell, str)}
    return environment


def _picture(picture: Picture, alt: str) -> Markup:
    """Return HTML that shows a PNG image, or the difference of two PNG images, with embedded bytes. Return an error text as HTML
    if a file cannot be read. style.css enlarges the image while its `details` element is open, so the page needs no script.
    """
    for path in filter(None, (picture.path, picture.apart_from)):
        if not path.is_file():
            return Markup('<span class="absent">missing: {}</span>').format(one_line(path.name))
    assert picture.path is not None
    try:
        apart_from = picture.apart_from
        content = difference_png(picture.path, apart_from) if apart_from else picture.path.read_bytes()
        width, height = png_size(content)
    except (OSError, ValueError) as error:
        return Markup('<span class="absent">{}: {}</span>').format(one_line(str(error)), one_line(picture.path.name))
    style = "pixelated" if width <= 128 else "smooth"
    shown_height = round(_SHOWN_WIDTH * height / width)
    return Markup(
        '<details class="zoom"><summary>'
        '<img class="{}" src="data:image/png;base64,{}" alt="{}" width="{}" height="{}"></summary></details>'
    ).format(style, b64encode(content).decode("ascii"), one_line(alt), _SHOWN_WIDTH, shown_height)
