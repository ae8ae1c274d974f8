"""Inputs: what a task's adapter was not trained on -> PNG files, their truths and inputs.json for each task."""

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from quadbench.zoo.training import corpus, image_to_image, removal, scenes, stickers, text_to_image

COUNT, SEED = 12, 5


def write_all(npm_folder: Path, photo_folder: Path, folder: Path) -> None:
    """Write one folder for each task below `folder`."""
    concepts = corpus.load_concepts(npm_folder)
    for task in image_to_image.PAIR:
        write_pairs(task, concepts, folder / task)
    write_stickers(concepts, folder / stickers.TASK)
    write_remove_object(npm_folder, photo_folder, folder / "remove-object")


def write_pairs(task: str, concepts: list[corpus.Concept], folder: Path) -> None:
    """A picture to start from and, as the truth, what it should become; the task's styles in turn."""
    entries = []
    for index, (concept, style) in enumerate(_in_turn(task, concepts, image_to_image.STYLES[task])):
        pair, before = image_to_image.PAIR[task](concept, style), image_to_image.source_style(task, style)
        entries.append(
            _entry(
                folder,
                index,
                name=concept.names[0],
                prompt=pair.captions[0],
                source=f"image: {corpus.EMOJI_CREDITS[before]}; truth: {corpus.EMOJI_CREDITS[style]}",
                pictures={"image": pair.source, "truth": pair.target},
            )
        )
    _write_index(folder, entries)


def write_stickers(concepts: list[corpus.Concept], folder: Path) -> None:
    """A prompt and, as the truth, one sticker that it can mean; Twemoji and Noto in turn."""
    entries = [
        _entry(
            folder,
            index,
            name=concept.names[0],
            prompt=text_to_image.caption(style, concept.names[0]),
            source=f"truth: {corpus.EMOJI_CREDITS[style]}",
            pictures={"truth": stickers.draw(style, concept)},
        )
        for index, (concept, style) in enumerate(_in_turn(stickers.TASK, concepts, tuple(corpus.STYLES.values())))
    ]
    _write_index(folder, entries)


def _in_turn(task: str, concepts: list[corpus.Concept], styles: tuple[str, ...]) -> list[tuple[corpus.Concept, str]]:
    _, held_out = corpus.task_split(task, concepts)
    ordered = sorted(held_out, key=lambda concept: concept.names[0])[:COUNT]
    return [(concept, styles[index % len(styles)]) for index, concept in enumerate(ordered)]


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
