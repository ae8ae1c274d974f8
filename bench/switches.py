"""A stored run of several tasks in turn -> switch and image together, shared against a graph for each task, as Markdown.

    quadbench run recipes/bk-sdm-switch.yaml --devices local
    python bench/switches.py [RUN] [--results DIR]

Takes every image that followed a switch from another task. The k-th of the i-th shared launch and the k-th of the i-th per-graph
launch are a pair: the same task at the same place of the sequence. Prints for each pair its times, then the ratio, per-graph to
shared, of each pair of launches, their mean and Student's interval at 95 % over them, since images of one launch are not
independent, and the peak memory of each launch.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from quadbench.artifacts import RunRecord, Status, Variant
from quadbench.recipe.tasks import NO_TASK
from quadbench.results.layout import Layout
from quadbench.results.stored_runs import load_run
from quadbench.statistics.intervals import t_quantile


@dataclass(frozen=True, kw_only=True)
class Switched:
    """A switch to a task and the image that followed it, in nanoseconds."""

    task: str
    switch_ns: float
    image_ns: float

    @property
    def together_ns(self) -> float:
        return self.switch_ns + self.image_ns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_id", nargs="?")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    records = [r for r in load_run(Layout(options.results), options.run_id).records if r.status is Status.OK]
    sides = [[r for r in records if r.variant is variant] for variant in (Variant.SHARED, Variant.PER_GRAPH)]
    launches = [list(zip(*map(switched, both), strict=True)) for both in zip(*sides, strict=True)]
    print("| to | switch: shared, per-graph, ms | image: shared, per-graph, s | ratio of both together |\n|---|---|---|---|")  # noqa: T201
    for shared, own in (pair for pairs in launches for pair in pairs):
        switches, images = (
            f"{shared.switch_ns / 1e6:.2f}, {own.switch_ns / 1e6:.0f}",
            f"{shared.image_ns / 1e9:.1f}, {own.image_ns / 1e9:.1f}",
        )
        print(f"| `{shared.task}` | {switches} | {images} | {own.together_ns / shared.together_ns:.3f} |")  # noqa: T201
    together = [mean(math.log(own.together_ns / shared.together_ns) for shared, own in pairs) for pairs in launches]
    alone = [mean(math.log(own.image_ns / shared.image_ns) for shared, own in pairs) for pairs in launches]
    print(f"\nswitch and image, per-graph / shared: {described(together)}\nimage alone: {described(alone)}")  # noqa: T201
    for record in records:
        peaks = {
            metric: max(s.value for s in record.samples if s.metric == metric)
            for metric in ("peak_rss_bytes", "load_peak_rss_bytes")
        }
        print(f"{record.variant} {record.launch}: " + ", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in peaks.items()))  # noqa: T201


def switched(record: RunRecord) -> Iterator[Switched]:
    """Yield the images that followed a switch from another task, in the order in which they were made."""
    switch_ns = 0.0
    for sample in record.samples:
        if sample.metric == "switch_ns":
            switch_ns = 0.0 if sample.labels.get("from", NO_TASK) == NO_TASK else sample.value
        elif sample.metric == "end_to_end_ns" and switch_ns:
            yield Switched(task=sample.task or "", switch_ns=switch_ns, image_ns=sample.value)
            switch_ns = 0.0


def described(logs: list[float]) -> str:
    """The mean ratio of the pairs of launches, its interval where there are several, and each."""
    each = ", ".join(f"{math.exp(log):.3f}" for log in logs)
    if len(logs) == 1:
        return f"{each}, of one pair of launches"
    half = t_quantile(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    low, middle, high = (math.exp(mean(logs) + by) for by in (-half, 0.0, half))
    return f"{middle:.3f} ({low:.3f} to {high:.3f}) of {len(logs)} pairs of launches: {each}"


if __name__ == "__main__":
    main()
