"""OLSS against Euler discrete at the same number of steps: PSNR of images against the 100-step teacher's, on the built-in tasks.

    python bench/samplers.py [RECIPE] [--steps 8] [--seeds 3] [--images 4]

Both run the float U-Net with the task's adapter, guidance and strength. OLSS is fitted on the calibration inputs, whose images
and noise the compared images do not share. Prints a line for each task and seed, and a Markdown table of means over seeds.
"""

import argparse
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from quadbench.artifacts import Component
from quadbench.quad.adapters.adapter import mix_adapters
from quadbench.quad.items import Item, PreparedTask, start_keys
from quadbench.quad.model.foundation import embedded_conditions
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, prepare
from quadbench.quad.runner import Denoiser, GraphSession
from quadbench.quad.samplers.ddim import ddim_table
from quadbench.quad.samplers.ed import ed_table
from quadbench.quad.samplers.table import SamplerTable, run_table
from quadbench.recipe import Recipe
from quadbench.recipe.recipe import load_recipe
from quadbench.recipe.tasks import OlssSampler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    rows = []
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(with_olss(load_recipe(options.recipe), options.steps), BuildSteps(), Path(scratch))
        for task in prepared.tasks:
            means_db = [compare(prepared, task, options.steps, seed, options.images) for seed in range(options.seeds)]
            for seed, (olss, ed) in enumerate(means_db):
                print(f"{task.task.name}, seed {seed}: OLSS {olss:.2f} dB, ED {ed:.2f} dB", flush=True)  # noqa: T201
            rows.append((task, np.array(means_db)))
    print(f"\n| task | OLSS, {options.steps} steps | ED, {options.steps} steps | fit error |\n|---|---|---|---|")  # noqa: T201
    for task, values in rows:
        cells = " | ".join(f"{values[:, i].mean():.1f} ± {values[:, i].std(ddof=1):.1f}" for i in (0, 1))
        print(f"| `{task.task.name}` | {cells} | {task.table.fit_error:.3f} |")  # noqa: T201


def with_olss(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe with OLSS as the sampler of every task."""
    sampler = OlssSampler(scheme="olss", steps=steps)
    return recipe.model_copy(update={"tasks": tuple(t.model_copy(update={"sampler": sampler}) for t in recipe.tasks)})


def compare(prepared: PreparedRecipe, task: PreparedTask, steps: int, seed: int, images: int) -> tuple[float, float]:
    """Return mean PSNR over images in dB: (OLSS, Euler discrete), both against DDIM with 100 steps from the same noise.

    Euler discrete executes as many steps as OLSS does: at a strength below 1 diffusers' schedule would be cut short.
    """
    schedule = prepared.foundation.schedule
    start = start_keys(task.task)
    whole = math.ceil(steps / start["strength"])
    tables = (ddim_table(schedule, **start), task.table, ed_table(schedule, steps=whole, **start))
    items = [replace(item, seed=item.seed + 1000 * (seed + 1)) for item in task.items.evaluation[:images]]
    images_db = []
    for item in items:
        teacher, olss, ed = (_image(prepared, task, table, item) for table in tables)
        images_db.append((_psnr_db(teacher, olss), _psnr_db(teacher, ed)))
    olss_db, ed_db = np.mean(images_db, axis=0)
    return float(olss_db), float(ed_db)


def _image(prepared: PreparedRecipe, task: PreparedTask, table: SamplerTable, item: Item) -> torch.Tensor:
    adapter = mix_adapters(prepared.adapters, task.task.adapter)
    embedded = embedded_conditions(prepared.foundation, table.timesteps)
    condition = prepared.encoders.condition(item, embedded, prepared.feed(adapter), task.task.guidance)
    latent = run_table(
        table,
        Denoiser(unet=prepared.unet, condition=condition),
        latent=prepared.encoders.latent(item),
        noise=item.noise(prepared.foundation, len(table.steps)),
        mask=item.latent_mask(prepared.foundation.sizes.latent),
    )
    decoder = GraphSession(prepared.models[Component.VAE_DECODER])
    return (decoder({"latent": latent.numpy()}).clamp(-1, 1) + 1) / 2


def _psnr_db(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(max(float((one - other).square().mean()), 1e-10))


if __name__ == "__main__":
    main()
