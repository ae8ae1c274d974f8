"""The shared quantized graph against the per-graph ones: PSNR of images against the float model's, for each task.

    python bench/parity.py [RECIPE] [--seeds 4]

Builds the recipe once for each seed, with other noise for calibration and evaluation alike, runs each evaluation input under both
variants and in float on ONNX Runtime's CPU provider, and compares image by image. Prints a line for each task and seed, and a
Markdown table over all images. The error of a difference is that of the mean over images.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch

from quadbench.artifacts import Bundle, Component, TaskAssets, Variant
from quadbench.pixels import psnr_db
from quadbench.quad.build import build
from quadbench.quad.quality.latents import TaskModel
from quadbench.quad.runner import GraphSession
from quadbench.recipe import Recipe, load_recipe

SEED_STRIDE = 1000  # beyond the items of a task, which use the seeds that follow its own
SIDES = (Variant.SHARED, Variant.PER_GRAPH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="use-cases")
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    found: dict[str, list[np.ndarray]] = {task.name: [] for task in recipe.tasks}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            bundle, folder = build(with_seed(recipe, seed), Path(scratch) / "bundles")
            for task in bundle.tasks:
                found[task.name].append(np.array(list(compare(bundle, folder, task))))
                print(f"{task.name}, seed {seed}: {cells(found[task.name][-1:])}", flush=True)  # noqa: T201
    print("\n| task | images | shared | per-graph | difference |\n|---|---|---|---|---|")  # noqa: T201
    for name, runs in found.items():
        print(f"| `{name}` | {cells(runs)} |")  # noqa: T201


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    tasks = tuple(task.model_copy(update={"seed": task.seed + SEED_STRIDE * seed}) for task in recipe.tasks)
    return recipe.model_copy(update={"tasks": tasks, "baselines": ("per-graph",)})


def compare(bundle: Bundle, folder: Path, task: TaskAssets) -> Iterator[tuple[float, float]]:
    """For each evaluation input PSNR in dB against the float image: (shared, per-graph)."""
    models = {variant: TaskModel.load(bundle, folder, task, variant) for variant in (Variant.FLOAT, *SIDES)}
    decoders = {variant: _decoder(bundle, folder, variant) for variant in (Variant.FLOAT, Variant.SHARED)}
    decoders[Variant.PER_GRAPH] = decoders[Variant.SHARED]  # which per-graph shares
    with torch.no_grad():
        for item in task.items:
            exact, *images = (_pixels(decoders[v]({"latent": model.run(item).latent})) for v, model in models.items())
            shared, per_graph = (psnr_db(exact, image) for image in images)
            yield shared, per_graph


def cells(runs: list[np.ndarray]) -> str:
    both = np.concatenate(runs)  # (images, 2)
    difference = both[:, 0] - both[:, 1]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    means = " | ".join(f"{value:.1f}" for value in both.mean(0))
    return f"{len(both)} | {means} | {difference.mean():+.1f} ± {error:.1f}"


def _decoder(bundle: Bundle, folder: Path, variant: Variant) -> GraphSession:
    graph = next(g for g in bundle.graphs if (g.variant, g.component) == (variant, Component.VAE_DECODER))
    return GraphSession(onnx.load(folder / graph.file.path))


def _pixels(image: torch.Tensor) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1] -> (H, W, 3) of 8 bits."""
    return ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


if __name__ == "__main__":
    main()
