"""HTML: RunResult -> one self-contained file without script: styles, pictures and charts are inside it."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from pydantic import TypeAdapter

from quadbench.artifacts import RunResult
from quadbench.artifacts.caveats import FigureKind
from quadbench.artifacts.names import one_line
from quadbench.artifacts.pixels import png_size
from quadbench.harness.event_log import check_painted
from quadbench.report import formatting, tables
from quadbench.report.baseline import baseline_tables
from quadbench.report.chart import Bar, BarPart, Series, legend, line_chart, stacked_bars
from quadbench.report.course import VARIANT_COLOURS, memory_chart, strip_chart, variant_legend
from quadbench.report.formatting import Unit
from quadbench.report.kpi import Figure, note_on
from quadbench.report.page import page_environment, write_page
from quadbench.report.provenance import MOST_NAMED
from quadbench.report.scores import Picture, Trajectory, difference_png
from quadbench.report.storage import Growth, Storage, UseCases, rom_parts, rom_steps
from quadbench.report.view import DeviceKpis, ReportView, RunSummary, TimeShare, report_view, run_summary, without_launches
from quadbench.report.ways import Ways
from quadbench.results.layout import Layout
from quadbench.statistics import MIN_BLOCKS

_SIDES = {"shared": "#1d5fa6", "per-graph": "#b3560b", "third": "#2f8f83"}  # CSS classes and their colours
_PARTS = {
    "text_encoder": ("text encoder", "#7d6bb3"),
    "vae_encoder": ("VAE encoder", "#2f8f83"),
    "unet_step": ("U-Net, all steps", "#1d5fa6"),
    "vae_decoder": ("VAE decoder", "#8fae3c"),
    "residual": ("residual", "#9aa1ab"),
}

_ROM_PARTS = {
    "text_encoder": _PARTS["text_encoder"],
    "vae_encoder": _PARTS["vae_encoder"],
    "vae_decoder": _PARTS["vae_decoder"],
    "unet": ("U-Nets", _SIDES["shared"]),
    "lora": ("LoRAs", _SIDES["per-graph"]),
}

_SHOWN_WIDTH = 128


def write_report(result: RunResult, layout: Layout, baseline: RunResult | None = None) -> Path:
    """Write a run's report, as `write_view` does.

    Raises:
        StorageError, ArtifactError: as `write_view`.
    """
    return write_view(report_view(result, layout, baseline), layout)


def write_view(view: ReportView, layout: Layout) -> Path:
    """Write `reports/<run id>.html` in the results folder, whole or not at all.

    Raises:
        StorageError: the folder is full or cannot be written.
        ArtifactError: an image is another than its launch painted.
    """
    for record in view.result.records:
        check_painted(record, layout)
    return write_page(layout.report(view.result.run_id), render_view(view))


def render_html(result: RunResult, layout: Layout, baseline: RunResult | None = None) -> str:
    """Return a run's report as text, as `render_view` does."""
    return render_view(report_view(result, layout, baseline))


def render_view(view: ReportView) -> str:
    """Return the report as text. The pictures are read; one that is missing is named in its place."""
    summary, is_short = run_summary(view, None), bool(view.listed.left_out)
    data = TypeAdapter(RunSummary).dump_json(without_launches(summary) if is_short else summary, indent=1).decode()
    page = _environment().get_template("report.html.j2")
    content = {"formatting": formatting, "min_blocks": MIN_BLOCKS, "most_named": MOST_NAMED}
    return page.render(view=view, data=data, is_short=is_short, **content)


@cache
def _environment() -> Environment:
    filters: dict[str, Callable[..., Any]] = {
        "mb": lambda value: formatting.show(value, Unit.MEGABYTES),
        "about": lambda caveats, *kinds: [caveat for caveat in caveats if caveat.is_about(*map(FigureKind, kinds))],
        "count": tables.count,
        "baseline_tables": lambda baseline, is_full: baseline_tables(baseline, is_full=is_full),
        "spread": tables.spread,
        "verdict_note": note_on,
        "picture": _picture,
        "storage_chart": _storage_chart,
        "growth_chart": growth_chart,
        "time_chart": _time_chart,
        "trajectory_chart": _trajectory_chart,
        "ways_chart": _ways_chart,
        "rom_chart": _rom_chart,
        "strip_chart": lambda strips: Markup(strip_chart(strips)),
        "memory_chart": lambda courses, address: Markup(memory_chart(courses, address)),
        "variant_legend": lambda variants: Markup(variant_legend(variants)),
    }
    environment = page_environment(filters)
    environment.tests |= {"figure": lambda cell: isinstance(cell, Figure), "text": lambda cell: isinstance(cell, str)}
    return environment


def _picture(picture: Picture, alt: str) -> Markup:
    """Return the image of a PNG file, or of how far it is from another, with its bytes inside; or what is missing.

    It stands in a fold without content, which style.css draws large where it is open: that needs no script and no second copy.
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


def _storage_chart(storage: Storage) -> Markup:
    """Draw the bytes on the device over the number of use cases."""
    steps = (*storage.measured, *storage.extrapolated)
    lines = {
        "per-graph": [(step.count, step.per_graph_bytes) for step in steps if step.per_graph_bytes is not None],
        "shared": [(step.count, step.shared_bytes) for step in steps if step.shared_bytes is not None],
    }
    title = "Bytes on the device by number of use cases"
    return _bytes_chart(lines, len(storage.measured), title=title, x_label="use cases")


def growth_chart(growth: Growth) -> Markup:
    """Draw the bytes of `ten-tasks` over the number of tasks, all of them measured."""
    lines = {"per-graph": [(count, own) for count, _, own in growth.steps], "shared": [step[:2] for step in growth.steps]}
    title = "Bytes of ten tasks on the built-in model, by number of tasks"
    return _bytes_chart(lines, len(growth.steps), title=title, x_label="tasks")


def _bytes_chart(lines: Mapping[str, Sequence[tuple[int, float]]], measured: int, *, title: str, x_label: str) -> Markup:
    """Draw the bytes of each side over the number of tasks, up to `measured` of which they were measured."""
    series = [
        Series(
            label=side,
            css_class=side,
            colour=_SIDES[side],
            points=[(count, formatting.convert(size, Unit.MEGABYTES)) for count, size in points],
            measured=sum(count <= measured for count, _ in points),
        )
        for side, points in lines.items()
        if points
    ]
    return Markup(line_chart(series, title=title, x_label=x_label, y_label="MB"))


def _rom_chart(storage: Storage) -> Markup:
    """Draw what the bytes on the device are of, by the number of use cases, on one scale."""
    bars = [bar for step in rom_steps(storage) for bar in _rom_bars(storage, step)]
    return Markup(legend(_parts(bars)) + stacked_bars(bars, title="What the bytes on the device are of, by number of use cases"))


def _rom_bars(storage: Storage, step: UseCases) -> Iterator[Bar]:
    for side, parts in (("shared", rom_parts(storage, step, is_shared=True)), ("per-graph", rom_parts(storage, step))):
        pieces = [
            BarPart(
                label=_ROM_PARTS[key][0],
                css_class=f"part-{key}",
                colour=_ROM_PARTS[key][1],
                value=formatting.convert(size, Unit.MEGABYTES),
            )
            for key, size in parts.items()
        ]
        if pieces:
            total = f"{formatting.show(sum(parts.values()), Unit.MEGABYTES)} MB"
            group = f"{formatting.plural(step.count, 'use case')}{'' if step.task else ', extrapolated'}"
            yield Bar(group=group, label=side, parts=tuple(pieces), total_text=total)


def _trajectory_chart(trajectory: Trajectory) -> Markup:
    """Draw the SQNR of eps over the steps of a task's sampler."""
    series = [
        Series(label=name, css_class=css_class, colour=colour, points=points)
        for (name, points), (css_class, colour) in zip(trajectory.curves, _SIDES.items(), strict=False)
    ]
    title = f"SQNR of eps at each step of {trajectory.task}"
    return Markup(line_chart(series, title=title, x_label="step", y_label="dB", width=360, height=220))


def _ways_chart(ways: Ways) -> Markup:
    """Draw the time of an image with its share of the switch, over how many images a task paints before the next comes."""
    series = [
        Series(
            label=variant.value,
            css_class=variant.value,
            colour=VARIANT_COLOURS[variant],
            points=[(count, formatting.convert(time_ns, Unit.MILLISECONDS)) for count, time_ns in points],
        )
        for variant, points in ways.curves.items()
    ]
    title = f"Time of an image with its share of the switch on {ways.device.address}"
    return Markup(line_chart(series, title=title, x_label="images of a task before the next", y_label="ms"))


def _parts(bars: Sequence[Bar]) -> Iterator[tuple[str, str, str]]:
    return ((part.css_class, part.colour, part.label) for bar in bars for part in bar.parts)


def _time_chart(device: DeviceKpis) -> Markup:
    """Draw the time of one image by component, on one scale for all tasks of a device."""
    bars = [_bar(share) for share in device.shares]
    chart = stacked_bars(bars, title=f"Time of one image by component on {device.device.address}")
    return Markup(legend(_parts(bars)) + chart)


def _bar(share: TimeShare) -> Bar:
    parts = tuple(
        BarPart(label=_PARTS[key][0], css_class=f"part-{key}", colour=_PARTS[key][1], value=max(value, 0.0))
        for key, value in share.parts
    )
    total = f"{formatting.show(share.end_to_end_ns, Unit.MILLISECONDS)} ms"
    return Bar(group=share.task, label=share.variant.value, parts=parts, total_text=total)
