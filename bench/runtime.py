"""A recipe and settings of its runtime -> time and memory under each, in one process after the other.

    python bench/runtime.py recipes/quickstart.yaml --over arena=none,session,shared --launches 4
    python bench/runtime.py recipes/quickstart.yaml --over preload=none,next --sequence restyle,remove-object,restyle
    python bench/runtime.py MY.yaml --variants shared,per-graph,resident,merged-at-load --sequence restyle,remove-object

Runs on this machine. Rounds go through all settings, every second one backwards, so that slow drift meets all alike. A figure is
the median of the launches' medians, with the lowest and the highest launch; memory is the highest of a launch's blocks. The ratio
to the first setting has its interval at 95 % over blocks of two launches (A B B A), where there are two blocks.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median

from in_turn import Unwatched

from quadbench.artifacts import Bundle, LaunchPlan, RunRecord, Variant
from quadbench.artifacts.run_record import SequenceBlock
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.measure.launch import measure_launch
from quadbench.measure.launch_record import LaunchSettings
from quadbench.pipeline import ensure_bundle
from quadbench.recipe import Recipe, Runtime
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest
from quadbench.rollout import roll_out
from quadbench.statistics.launch_comparison import compare_launches

MS, MB = 1e6, 2**20


def median_of(metric: str) -> Callable[[RunRecord], float | None]:
    def read(record: RunRecord) -> float | None:
        values = [sample.value for sample in record.samples if sample.metric == metric and not sample.is_warmup]
        return median(values) if values else None

    return read


def highest(metric: str) -> Callable[[RunRecord], float | None]:
    return lambda record: max((s.value for s in record.samples if s.metric == metric), default=None)


def first_run(*, is_switched: bool) -> Callable[[RunRecord], float | None]:
    """A U-Net run in an image's first step over the median of the task's later steps: of images after a switch, or others."""

    def read(record: RunRecord) -> float | None:
        later, firsts, came_from = defaultdict[str | None, list[float]](list), list[tuple[str | None, float]](), ""
        for sample in record.samples:
            if sample.metric == "switch_ns":
                came_from = sample.labels["from"]
            elif sample.metric == "unet_ns" and sample.step:
                later[sample.task].append(sample.value / int(sample.labels["runs"]))
            elif sample.metric == "unet_ns" and came_from != "none" and bool(came_from) is is_switched:
                firsts.append((sample.task, sample.value / int(sample.labels["runs"])))
            elif sample.metric == "end_to_end_ns":
                came_from = ""
        ratios = [first / median(later[task]) for task, first in firsts if later[task]]
        return median(ratios) if ratios else None

    return read


def likeness(record: RunRecord) -> float | None:
    values = [s.value for s in record.samples if s.metric == "psnr_db" and s.labels["against"] == "reference"]
    return mean(values) if values else None


def switch_and_image(record: RunRecord) -> float | None:
    images, switch = [], None
    for sample in record.samples:
        if sample.metric == "switch_ns":
            switch = sample.value if sample.labels["from"] != "none" else None
        if sample.metric == "end_to_end_ns" and switch is not None:
            images.append(switch + sample.value)
            switch = None
    return median(images) if images else None


FIGURES: Mapping[str, tuple[Callable[[RunRecord], float | None], float]] = {
    "U-Net step, ms": (median_of("unet_ns"), MS),
    "end to end, ms": (median_of("end_to_end_ns"), MS),
    "switch, ms": (median_of("switch_ns"), MS),
    "switch and first image, ms": (switch_and_image, MS),
    "U-Net run in the first step after a switch / later": (first_run(is_switched=True), 1.0),
    "U-Net run in the first step of others / later": (first_run(is_switched=False), 1.0),
    "merging an adapter, ms": (median_of("adapter_merge_ns"), MS),
    "preload, ms": (median_of("adapter_preload_ns"), MS),
    "reload, ms": (median_of("reload_ns"), MS),
    "U-Net load, ms": (median_of("session_load_ns"), MS),
    "peak RAM running, MB": (highest("peak_rss_bytes"), MB),
    "peak RAM loading, MB": (highest("load_peak_rss_bytes"), MB),
    "anonymous at the end, MB": (median_of("rss_anonymous_bytes"), MB),
    "reading memory, ms": (median_of("memory_sampling_ns"), MS),
    "pictures against the reference, dB": (likeness, 1.0),
}


def settings_of(options: argparse.Namespace, base: Runtime) -> Iterator[tuple[str, Variant, Runtime]]:
    over = [(key, values.split(",")) for key, _, values in (text.partition("=") for text in options.over)]
    if len(dict(over)) < len(over):
        raise SystemExit(f"--over is given {len(over)} times for {len(dict(over))} keys; give each key once, with all its values")
    grids = [[(key, value) for value in values] for key, values in over]
    for variant in options.variants.split(","):
        for chosen in itertools.product(*grids):
            runtime = Runtime.model_validate({**base.model_dump(), **dict(chosen)}, strict=False)
            yield " ".join([variant, *(f"{key}={value}" for key, value in chosen)]), Variant(variant), runtime


def sequence_of(options: argparse.Namespace, recipe: Recipe) -> tuple[SequenceBlock, ...]:
    names = options.sequence.split(",") if options.sequence else [task.name for task in recipe.tasks]
    return tuple(SequenceBlock(task=name, warmup=options.warmup, iterations=options.iterations) for name in names)


def report(launches: Mapping[str, Sequence[RunRecord]]) -> None:
    first = next(iter(launches))
    for title, (read, unit) in FIGURES.items():
        sides = {name: [value for record in records if (value := read(record)) is not None] for name, records in launches.items()}
        if not any(sides.values()):
            continue
        print(title)  # noqa: T201
        for name, values in sides.items():
            if not values:
                continue
            low, high = min(values) / unit, max(values) / unit
            line = f"  {name:48} {median(values) / unit:12,.3f}  ({low:,.3f} to {high:,.3f}, {len(values)} launches)"
            if name != first and len(values) == len(sides[first]) and min(*values, *sides[first]) > 0:
                compared = compare_launches(sides[first], values)
                if compared.ratio is not None and compared.low is not None:
                    line += f"  ratio {compared.ratio:.3f} ({compared.low:.3f} to {compared.high:.3f}) {compared.verdict}"
            print(line)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument(
        "--over", action="append", default=[], help="KEY=VALUE,VALUE of the recipe's runtime; several make a grid"
    )
    parser.add_argument("--variants", default="shared")
    parser.add_argument("--sequence", help="tasks, in order; default: each once")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--launches", type=int, default=4)
    parser.add_argument("--bundle", type=Path, help="one that was built from the recipe before")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    recipe, layout = load_recipe(options.recipe), Layout(options.results)
    ways = list(settings_of(options, recipe.runtime))
    sequence = sequence_of(options, recipe)
    bundle = (
        read_manifest(options.bundle, Bundle) if options.bundle else ensure_bundle(recipe, layout=layout, observer=Unwatched())
    )
    launches: dict[str, list[RunRecord]] = {name: [] for name, _, _ in ways}
    with connect(parse_addresses(["local"]), layout=layout) as devices:
        (installation,) = roll_out([bundle], devices, layout=layout, observer=Unwatched(), runs_float=False).installations
        for number in range(options.launches):
            for name, variant, runtime in ways if number % 2 == 0 else reversed(ways):
                settings = LaunchSettings(run_id="runtime", layout=layout, runtime=runtime, timeout_s=recipe.measure.timeout_s)
                record = measure_launch(installation, LaunchPlan(variant=variant, launch=number, sequence=sequence), settings)
                if record.reason:
                    raise SystemExit(f"{name}: {record.reason}")
                launches[name].append(record)
                print(name, f"{(record.ended_at - record.started_at).total_seconds():.1f} s", flush=True)  # noqa: T201
    report(launches)


if __name__ == "__main__":
    main()
