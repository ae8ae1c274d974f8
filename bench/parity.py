"""The shared quantized graph against the per-graph ones: PSNR of images against the float model's, for each task.

    python bench/parity.py [RECIPE] [--seeds 8]

Builds the recipe once for each seed, with other noise for calibration and evaluation alike, and runs each evaluation input
under both variants, which the recipe's scheme calibrates, and in float, on ONNX Runtime's CPU provider. It compares image by
image; then again with the U-Net alone quantized, as text encoder and VAE are the same graphs in both variants. Prints a line for
each task and seed, and a Markdown table over all images. A difference is that of shared minus per-graph, in dB, its error that of
the mean over images.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image

from quadbench.artifacts import Component, StoredBundle, TaskAssets, TaskItem, Variant
from quadbench.artifacts.pixels import Pixels, composite, psnr_db, read_pixels
from quadbench.quad.build import build
from quadbench.quad.runner import GraphSession
from quadbench.quality.trajectories import TaskModel
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout

SEED_STRIDE = 1000  # beyond the items of a task, which use the seeds that follow its own
SIDES = (Variant.SHARED, Variant.PER_GRAPH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="use-cases")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    runs: dict[str, list[np.ndarray]] = {task.name: [] for task in recipe.tasks}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            bundle = build(with_seed(recipe, seed), Layout(Path(scratch)))
            for task in bundle.artifact.tasks:
                runs[task.name].append(np.array(list(compare(bundle, task))))
                print(f"{task.name}, seed {seed}: {cells(runs[task.name][-1:])}", flush=True)  # noqa: T201
    print("\n| task | images | shared | per-graph | difference | U-Net alone |\n|---|---|---|---|---|---|")  # noqa: T201
    for name, values in runs.items():
        print(f"| `{name}` | {cells(values)} |")  # noqa: T201


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    tasks = tuple(task.model_copy(update={"seed": task.seed + SEED_STRIDE * seed}) for task in recipe.tasks)
    return recipe.model_copy(update={"tasks": tasks, "baselines": ("per-graph",)})


def compare(bundle: StoredBundle, task: TaskAssets) -> Iterator[tuple[float, ...]]:
    """Yield the PSNR in dB of each input: shared and per-graph against float, then both with the U-Net alone quantized."""
    exact = TaskModel.load(bundle, task, Variant.FLOAT)
    models = [TaskModel.load(bundle, task, variant) for variant in SIDES]
    unets = [replace(m, text_encoder=exact.text_encoder, vae_encoder=exact.vae_encoder) for m in models]
    float_decoder, decoder = (decoder_of(bundle, variant) for variant in (Variant.FLOAT, Variant.SHARED))
    pairs = [*((model, decoder) for model in models), *((model, float_decoder) for model in unets)]
    with torch.no_grad():
        for item in task.items:
            expected = picture_of(exact, float_decoder, item)
            yield tuple(psnr_db(expected, picture_of(model, vae_decoder, item)) for model, vae_decoder in pairs)


def cells(runs: list[np.ndarray]) -> str:
    images = np.concatenate(runs)  # (images, 4)
    means = " | ".join(f"{value:.1f}" for value in images[:, :2].mean(0))
    return f"{len(images)} | {means} | {_mean(images[:, 0] - images[:, 1])} | {_mean(images[:, 2] - images[:, 3])}"


def _mean(differences: np.ndarray) -> str:
    return f"{differences.mean():+.1f} ± {differences.std(ddof=1) / np.sqrt(len(differences)):.1f}"


def decoder_of(bundle: StoredBundle, variant: Variant) -> GraphSession:
    graph = next(g for g in bundle.artifact.graphs if (g.variant, g.component) == (variant, Component.VAE_DECODER))
    return GraphSession(onnx.load(bundle.path(graph.file)))


def picture_of(model: TaskModel, decoder: GraphSession, item: TaskItem) -> Pixels:
    """Return the task's image of an item, (H, W, 3) of 8 bits, composited where the task says so."""
    image = decoder({"latent": model.run(item).latent})[0]  # (3, H, W) in [-1, 1]
    decoded: Pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    if item.blend is None or item.image is None:
        return decoded
    with Image.open(model.bundle.path(item.blend)) as blend:
        return composite(decoded, read_pixels(model.bundle.path(item.image)), blend)


if __name__ == "__main__":
    main()
