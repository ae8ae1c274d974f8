"""Inputs: what no training step has seen -> PNG files, their truths and inputs.json for both tasks."""

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from quadbench.zoo.training import corpus, removal, scenes

COUNT, SEED = 12, 5


def write_all(npm_folder: Path, photo_folder: Path, folder: Path) -> None:
    """Write `restyle/` and `remove-object/` below `folder`."""
    write_restyle(npm_folder, folder / "restyle")
    write_remove_object(npm_folder, photo_folder, folder / "remove-object")


def write_restyle(npm_folder: Path, folder: Path) -> None:
    """Held-out concepts: the Twemoji picture and, as the truth, the Noto picture."""
    _, held_out = corpus.split(corpus.load_concepts(npm_folder))
    ordered = sorted(held_out, key=lambda concept: concept.names[0])[:COUNT]
    entries = [
        _entry(
            folder,
            index,
            name=concept.names[0],
            prompt=f"noto {concept.names[0]}",
            source=f"image: {corpus.EMOJI_CREDITS['twemoji']}; truth: {corpus.EMOJI_CREDITS['noto']}",
            pictures={"image": concept.images["twemoji"], "truth": concept.images["noto"]},
        )
        for index, concept in enumerate(ordered)
    ]
    _write_index(folder, entries)


def write_remove_object(npm_folder: Path, photo_folder: Path, folder: Path) -> None:
    """Crops of held-out photographs with held-out emoji pasted on them; the truth is the crop."""
    photos = corpus.load_photos(photo_folder, held_out=True)
    cutouts = corpus.load_cutouts(npm_folder, held_out=True)
    rng = random.Random(SEED)
    entries = []
    for index in range(COUNT):
        stem = sorted(photos)[index % len(photos)]
        author, licence = corpus.PHOTO_CREDITS[stem]
        scene = scenes.make([photos[stem]], cutouts, rng)
        entries.append(
            _entry(
                folder,
                index,
                name=f"{stem.split('_')[0]} {index // len(photos) + 1}",
                prompt=removal.PROMPT,
                source=f"crop of {stem} by {author}, {licence}; object: Twemoji (CC BY 4.0) or Noto Emoji (Apache-2.0)",
                pictures={"image": scene.composite, "mask": scene.mask, "truth": scene.truth},
            )
        )
    _write_index(folder, entries)


def _entry(
    folder: Path, index: int, *, name: str, prompt: str, source: str, pictures: dict[str, np.ndarray]
) -> dict[str, str | None]:
    files: dict[str, str | None] = {"image": None, "mask": None, "truth": None}
    for kind, pixels in pictures.items():
        files[kind] = f"{index:03}.png" if kind == "image" else f"{kind}/{index:03}.png"
        path = folder / str(files[kind])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, optimize=True)
    return {"name": name, **files, "prompt": prompt, "negative_prompt": "", "source": source}


def _write_index(folder: Path, entries: list[dict[str, str | None]]) -> None:
    (folder / "inputs.json").write_text(json.dumps(entries, indent=2) + "\n")
