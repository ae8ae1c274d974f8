"""Scores: what quality says of a run -> tables of text, and the sentences that explain them."""

from collections.abc import Iterable

from quadbench.artifacts.scores import Better, Compared, Metric, RunScores, Score
from quadbench.report.text_table import TextTable

MADE = {
    "shared": "Shared",
    "per-graph": "Per-graph",
    "resident": "Resident",
    "merged-at-load": "Merged-at-load",
    "float": "Float graphs",
    "reference": "Float",
}
_AGAINST = {"reference": "float", "truth": "truth"}
_SMALL = 0.01  # below, four digits after the point are too few
_ARROWS = {Better.HIGHER: "↑", Better.LOWER: "↓"}


def score_tables(scores: RunScores) -> tuple[TextTable, ...]:
    """Return a table for each task and device; each has also what no device made, as the float reference."""
    tables = []
    for task in dict.fromkeys(c.task for c in scores.compared):
        of_task = [c for c in scores.compared if c.task == task]
        for device in dict.fromkeys(c.device for c in of_task if c.device) or [None]:
            title = f"{task} on {device}" if device else task
            tables.append(_table(title, [c for c in of_task if c.device in (device, None)]))
    return tuple(tables)


def score_notes(scores: RunScores) -> tuple[str, ...]:
    """Say what each metric is, or why it is absent: a reason stands once, however many tables lack the figure."""
    every = [score for c in scores.compared for score in c.scores]
    notes = ["↑ is better when higher, ↓ when lower; n is the number of images, of latents or of U-Net runs."]
    for metric in _metrics(every):
        of_metric = [score for score in every if score.metric.name == metric.name]
        if any(_is_figure(score) for score in of_metric):
            notes.append(f"{metric.title}: {metric.definition}")
        reasons = dict.fromkeys(score.value for score in of_metric if isinstance(score.value, str))
        notes += [f"{metric.title}: unavailable: {reason}" for reason in reasons]
    return tuple(notes)


def _table(title: str, compared: Iterable[Compared]) -> TextTable:
    """Return metrics down and what is compared across; a metric that nothing has a figure of is left out."""
    columns: dict[str, dict[str, Score]] = {}
    for c in compared:
        name = f"{MADE.get(c.made, c.made)} vs {_AGAINST.get(c.against, c.against)}"
        columns.setdefault(name, {}).update({score.metric.name: score for score in c.scores})
    rows = []
    for metric in _metrics(score for column in columns.values() for score in column.values() if _is_figure(score)):
        cells = [column.get(metric.name) for column in columns.values()]
        counts = dict.fromkeys(str(score.n) for score in cells if score and _is_figure(score))
        rows.append((_name(metric), *(_cell(score) for score in cells), " / ".join(counts)))
    return TextTable(
        title=title, columns=("Metric", *columns, "n"), numeric=(False, *(True for _ in columns), True), rows=tuple(rows)
    )


def _name(metric: Metric) -> str:
    return (
        f"{metric.title}, {metric.unit} {_ARROWS[metric.better]}" if metric.unit else f"{metric.title} {_ARROWS[metric.better]}"
    )


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    if isinstance(score.value, str):
        return "-"
    if score.metric.unit == "dB":
        return f"{score.value:.1f}"
    return f"{score.value:.4f}" if abs(score.value) >= _SMALL else f"{score.value:.2g}"


def _is_figure(score: Score) -> bool:
    return not isinstance(score.value, str)


def _metrics(scores: Iterable[Score]) -> list[Metric]:
    return list({score.metric.name: score.metric for score in scores}.values())
