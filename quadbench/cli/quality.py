"""Quality: a stored run, or folders of images -> how far the images are from what they should be."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from quadbench import pipeline
from quadbench.cli.options import add_command, addresses
from quadbench.console import RunConsole, print_json, print_text
from quadbench.errors import UserError
from quadbench.scores import Compared, Metric, RunScores, Score

_MADE = {"shared": "Shared", "per-graph": "Per-graph", "reference": "Float"}
_AGAINST = {"reference": "float", "truth": "truth"}


def add(commands: Any) -> None:
    """`quadbench quality`."""
    parser = add_command(
        commands, "quality", run, "score the images of a stored run, or of a folder, against what they should be"
    )
    parser.add_argument("run_id", nargs="?", help="the run (default: the latest)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="images of any origin instead of a run's")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="what they should be, under the same names")
    parser.add_argument("--source", type=Path, metavar="DIR", help="what they were made from, for CLIP direction")
    parser.add_argument("--metrics", default="", metavar="A,B", help="psnr, ssim, st_lpips, kid, ... (default: all)")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH@sha256:HEX",
        help="an ONNX file for clip, dino, inception or lpips; may be given more than once (docs/quality.md)",
    )
    parser.add_argument("--latents", action="store_true", help="also run the run's graphs here and compare eps and latents")


def run(options: argparse.Namespace) -> int:
    metrics = addresses(options.metrics) or None
    if options.images or options.reference:
        scores, title = _of_folders(options, metrics), ""
    else:
        with RunConsole(Console(stderr=True)) as observer:
            result, scores = pipeline.quality(
                options.run_id,
                metrics=metrics,
                weights=options.weights,
                with_latents=options.latents,
                results=options.results,
                observer=observer,
            )
        title = f", run {result.run_id}"
    if options.json:
        print_json(asdict(scores))
    else:
        print_scores(Console(), scores, title)
    return 0


def _of_folders(options: argparse.Namespace, metrics: Sequence[str] | None) -> RunScores:
    if not (options.images and options.reference):
        raise UserError("--images and --reference go together", hint="quadbench quality --images DIR --reference DIR")
    if options.run_id or options.latents:
        raise UserError("a folder of images has no run and no latents", hint="give either a run or --images")
    return pipeline.quality_of_folders(
        options.images, options.reference, options.source, metrics=metrics, weights=options.weights
    )


def print_scores(console: Console, scores: RunScores, title: str) -> None:
    """A table for each task and device; below, once, what each metric is, or why there is none."""
    for task in dict.fromkeys(c.task for c in scores.compared):
        of_task = [c for c in scores.compared if c.task == task]
        for device in dict.fromkeys(c.device for c in of_task if c.device) or [None]:
            on = f" on {device}" if device else ""
            console.print(_table(f"{task}{on}{title}", [c for c in of_task if c.device in (device, None)]))
    for line in _explanations([score for c in scores.compared for score in c.scores]):
        print_text(line)


def _table(title: str, compared: Sequence[Compared]) -> Table:
    """Metrics down, what is compared across; a metric that nothing has a value of is left out."""
    shown = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    columns: dict[tuple[str, str], dict[str, Score]] = {}
    for c in compared:
        columns.setdefault((c.made, c.against), {}).update({score.metric.name: score for score in c.scores})
    shown.add_column("Metric")
    for made, against in columns:
        shown.add_column(f"{_MADE.get(made, made)} vs {_AGAINST.get(against, against)}", justify="right", overflow="fold")
    shown.add_column("n", justify="right")
    for metric in _metrics(score for c in compared for score in c.scores if not isinstance(score.value, str)):
        cells = [found.get(metric.name) for found in columns.values()]
        counts = dict.fromkeys(str(score.n) for score in cells if score and not isinstance(score.value, str))
        arrow = "↑" if metric.better == "higher" else "↓"
        name = f"{metric.title}, {metric.unit} {arrow}" if metric.unit else f"{metric.title} {arrow}"
        shown.add_row(name, *(_cell(score) for score in cells), " / ".join(counts))
    return shown


def _cell(score: Score | None) -> str:
    if score is None or isinstance(score.value, str):
        return "" if score is None else "-"
    return f"{score.value:.1f}" if score.metric.unit == "dB" else f"{score.value:.4f}"


def _explanations(scores: Sequence[Score]) -> list[str]:
    """`↑` is better when higher. A reason stands once, however many tables lack the figure."""
    lines = []
    for metric in _metrics(scores):
        of_metric = [score for score in scores if score.metric.name == metric.name]
        if any(not isinstance(score.value, str) for score in of_metric):
            lines.append(f"{metric.title}: {metric.definition}")
        reasons = dict.fromkeys(score.value for score in of_metric if isinstance(score.value, str))
        lines += [f"{metric.title}: unavailable: {reason}" for reason in reasons]
    return [*lines, "↑ is better when higher, ↓ when lower; n is the number of images, of latents or of U-Net runs."]


def _metrics(scores: Iterable[Score]) -> list[Metric]:
    return list({score.metric.name: score.metric for score in scores}.values())
