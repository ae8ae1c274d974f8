"""A recipe's first task and two ways to launch it -> the times of each launch, A B B A, and how the ways differ, printed."""

import statistics
from collections.abc import Callable
from typing import Any

from quadbench.artifacts import LaunchPlan, RunRecord, Variant
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.recipe import Recipe
from quadbench.statistics.launch_comparison import compare_launches

METRICS = ("unet_ns", "end_to_end_ns")


class Unwatched:
    """An observer that watches nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *words: None


def first_task(recipe: Recipe, iterations: int) -> LaunchPlan:
    """Return a launch of the shared graph that makes so many images of the first task after one of warm-up."""
    sequence = (SequenceBlock(task=recipe.tasks[0].name, warmup=1, iterations=iterations),)
    return LaunchPlan(variant=Variant.SHARED, launch=0, sequence=sequence)


def launch_in_turn(a: str, b: str, blocks: int, launch: Callable[[str], RunRecord]) -> None:
    """Print the medians of each launch, then as Markdown the comparison of each metric, with its interval at 95 %."""
    medians: dict[str, dict[str, list[float]]] = {metric: {a: [], b: []} for metric in METRICS}
    for way in (a, b, b, a) * blocks:
        record = launch(way)
        if record.reason:
            raise SystemExit(record.reason)
        for metric in METRICS:
            values = [sample.value for sample in record.samples if sample.metric == metric and not sample.is_warmup]
            medians[metric][way].append(statistics.median(values))
        print(way, *(f"{metric} {medians[metric][way][-1] / 1e6:.2f} ms" for metric in METRICS), flush=True)  # noqa: T201
    print(f"| figure | {a}, ms | {b}, ms | {b} / {a} | verdict |\n|---|---|---|---|---|")  # noqa: T201
    for metric, of_way in medians.items():
        told = compare_launches(of_way[a], of_way[b])
        interval = f" ({told.low:.4f} to {told.high:.4f})" if told.low and told.high else ""
        cells = (*(f"{statistics.median(of_way[way]) / 1e6:.2f}" for way in (a, b)), f"{told.ratio:.4f}{interval}", told.verdict)
        print(f"| {metric} | {' | '.join(cells)} |", flush=True)  # noqa: T201
