"""Reports: the name of a kind of report -> one of its kind as it is written, with something of everything in it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from quadbench.artifacts import Variant
from quadbench.report.html import render_html, render_study
from quadbench.report.night import night_view
from quadbench.report.night_formats import render_night
from quadbench.results.layout import Layout
from support.hand_made import EVEN, comparison_of, point, sweep_of
from support.night_samples import sample_night, series
from support.synthetic_run import ABBA, S25, TABS11, make_run

_RECIPE = f"schema_version: 1\nname: quickstart\nnotes: {'a line that is longer than any page is wide ' * 5}\n"


def _run(folder: Path) -> str:
    variants = (*ABBA * 2, Variant.RESIDENT)
    result = make_run(folder, devices=(S25, TABS11), variants=variants, iterations=3, items=6)
    return render_html(replace(result, recipe=_RECIPE), Layout(folder))


def _sweep(folder: Path) -> str:
    good = (40.0, 42.0, 41.0, 43.0)
    many = {f"one of many figures, no. {number}": good for number in range(20)}
    one = point("int16", psnr=good, end_to_end=EVEN, bytes=(10.0,), **many)
    other = point("int8", psnr=(39.0, 41.1, 39.9, 42.0), end_to_end=EVEN, bytes=(8.8,), **many)
    return render_study(sweep_of(one, other), Layout(folder).root_arguments)


def _comparison(folder: Path) -> str:
    return render_study(comparison_of({"virtual:s25": 1.05, "virtual:tabs11": 9.0}), Layout(folder).root_arguments)


def _night(_: Path) -> str:
    commands = {
        "The same again": "quadbench nightly run night.yaml",
        "As data": "quadbench nightly run night.yaml --night 2026-01-21 --json",
    }
    return render_night(night_view(sample_night(), series()), commands)


REPORTS: Mapping[str, Callable[[Path], str]] = {
    "run": _run, "sweep": _sweep, "comparison": _comparison, "night": _night
}  # fmt: skip
