"""The built-in model and what it was trained on -> PSNR of its autoencoder, and KID of 1000 pictures that it makes from captions.

python scripts/measure_zoo.py --data DIR --photos DIR
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from quadbench import zoo
from quadbench.quality.metrics import kernel_distance
from quadbench.quality.networks import Network, find_network
from training import autoencoder, captions, corpus, export, pictures, sheets

COUNT, SEED, BATCH = 1000, 11, 50
LEAST = 2  # pictures that a kernel distance needs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the npm packages, as for `python -m training`")
    parser.add_argument("--photos", type=Path, required=True, help="folder with the photographs")
    parser.add_argument("--out", type=Path, default=zoo.FOLDER, help="folder with emoji-ldm and inputs; this package by default")
    parser.add_argument("--pictures", type=int, default=COUNT)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    concepts, held_out = corpus.split(corpus.load_concepts(arguments.data))
    most = len(concepts) * len(corpus.STYLES)
    if not LEAST <= arguments.pictures <= most:
        parser.error(f"--pictures {arguments.pictures}: expected {LEAST} to {most}, as many as there are to compare with")
    if isinstance(network := find_network("efficientnet-lite0", {}), str):
        parser.error(network)
    photos = list(corpus.load_photos(arguments.photos, held_out=True).values())
    checks = pictures.mix(held_out, photos, scene_count=autoencoder.CHECKS, crop_count=autoencoder.CHECKS)
    figures = psnr_of_autoencoder(arguments.out, checks)
    figures[f"KID x 1000 of {arguments.pictures} pictures"] = 1000 * kid(concepts, arguments.out, arguments.pictures, network)
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=2) + "\n")


def psnr_of_autoencoder(out: Path, checks: pictures.Mix) -> dict[str, float]:
    """Decibels of held-out pictures, and of the images and truths of each task, that went through the autoencoder."""
    vae = export.load(out / "emoji-ldm").vae
    figures = {f"autoencoder, held-out {kind}": value for kind, value in autoencoder.psnr_by_kind(vae, checks).items()}
    for task in zoo.TASKS:
        items = zoo.task_inputs(task, folder=out)
        for role, paths in (("images", [i.image for i in items]), ("truths", [i.truth for i in items])):
            pixels = [np.asarray(Image.open(path)) for path in paths if path]
            if pixels:
                figures[f"autoencoder, {role} of {task}"] = autoencoder.psnr(vae, torch.from_numpy(np.stack(pixels)))
    return figures


def kid(concepts: list[corpus.Concept], out: Path, count: int, network: Network) -> float:
    """Between pictures of the training set, drawn at random, and as many that are made from their captions."""
    known = [(style, concept) for concept in concepts for style in corpus.STYLES.values()]
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(SEED)).tolist()
    chosen = [known[i] for i in order[:count]]
    prompts = [captions.caption(style, concept.names[0]) for style, concept in chosen]
    drawn = [np.asarray(picture) for start in range(0, count, BATCH) for picture in _draw(out, prompts, start)]
    known_pictures = [concept.image(style) for style, concept in chosen]
    return kernel_distance(_features(network, drawn), _features(network, known_pictures))


def _draw(out: Path, prompts: list[str], start: int) -> list[Image.Image]:
    return sheets.draw(out, prompts[start : start + BATCH], first_seed=start)


@torch.no_grad()
def _features(network: Network, images: list[np.ndarray]) -> np.ndarray:
    batches = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255).split(BATCH)
    return torch.cat([network(batch) for batch in batches]).numpy()


if __name__ == "__main__":
    main()
