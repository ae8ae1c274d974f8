"""Pictures of adapters with weights, as the harness painted them, against diffusers with PEFT's `set_adapters`.

    quadbench run recipes/adapter-weights.yaml --devices local --results DIR
    python bench/set_adapters.py DIR/runs/RUN

Prints, for each task, the greatest difference of the float graph's pictures in steps of 255, and the PSNR in dB, mean and worst,
of the shared graph's and the per-graph one's. All are against the pipeline of diffusers on the same noise.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from quadbench import zoo
from quadbench.artifacts.pixels import max_abs_difference, psnr_db, read_pixels
from quadbench.quad.items import fixed_table, task_items
from quadbench.quad.model.foundation import Foundation, load_foundation
from quadbench.quad.model_files import AdapterFormat, AdapterSource
from quadbench.quad.reference import Reference, with_adapters
from quadbench.recipe import Task
from quadbench.recipe.recipe import load_recipe

SIDES = ("float-0", "shared-0", "per-graph-0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of the recipe on `local`")
    parser.add_argument("--recipe", default="adapter-weights")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    foundation = load_foundation(zoo.foundation_folder("emoji-ldm"))
    print("| task | pictures | float, of 255 | shared, dB: mean, worst | per-graph, dB: mean, worst |\n|---|---|---|---|---|")  # noqa: T201
    for task in recipe.tasks:
        with torch.no_grad():
            rows = list(compared(options.run / "local", foundation, task, recipe.quad.calibration.samples))
        exact, shared, per_graph = (np.array(column) for column in zip(*rows, strict=True))
        cells = (f"{values.mean():.1f}, {values.min():.1f}" for values in (shared, per_graph))
        print(f"| `{task.name}` | {len(rows)} | {exact.max()} | {' | '.join(cells)} |", flush=True)  # noqa: T201


def compared(painted: Path, foundation: Foundation, task: Task, samples: int) -> Iterator[tuple[int, float, float]]:
    """Yield the greatest difference in float and the PSNR of either variant, for each input that calibration has not seen."""
    items = task_items(task, foundation, calibration_samples=samples)
    table = fixed_table(task, foundation)
    if table is None:
        raise SystemExit(f"the sampler of {task.name} is fitted when a bundle is built; expected ed or lcm")
    sources = {name: AdapterSource(format=AdapterFormat.PEFT, path=zoo.adapter_folder(name)) for name in task.adapter}
    unet = with_adapters(foundation.unet, sources, task.adapter)
    reference = Reference(foundation=foundation, task=task, table=table, unet=unet)
    for item in items.evaluation:
        expected = np.asarray(reference.render(item))
        exact, *quantized = (read_pixels(painted / side / "images" / task.name / f"{item.name}.png") for side in SIDES)
        shared, per_graph = (psnr_db(pixels, expected) for pixels in quantized)
        yield max_abs_difference(exact, expected), shared, per_graph


if __name__ == "__main__":
    main()
