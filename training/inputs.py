"""Inputs: what a task's adapter was not trained on -> PNG files, their truths and inputs.json for each task."""

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from training import captions, corpus, image_to_image, removal, scenes, stickers

COUNT, SEED = 12, 5


def write_all(npm_folder: Path, folder: Path) -> None:
    """Write one folder for each task below `folder`."""
    concepts = corpus.load_concepts(npm_folder)
    for task in image_to_image.PAIR:
        write_pairs(task, concepts, folder / task)
    write_stickers(concepts, folder / stickers.TASK)
    write_scenes(concepts, folder / removal.TASK)


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
                prompt=pair.wording.texts[0],
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
            prompt=captions.caption(style, concept.names[0]),
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


def write_scenes(concepts: list[corpus.Concept], folder: Path) -> None:
    """Scenes of held-out emoji; the truth is the scene without the object."""
    _, held_out = corpus.split(concepts)
    emoji, rng = scenes.named(held_out), random.Random(SEED)
    entries = []
    for index in range(COUNT):
        scene = scenes.draw(emoji, rng)
        entries.append(
            _entry(
                folder,
                index,
                name=f"{scene.words.split(' of ')[0]} {index + 1}",
                prompt=captions.of_ground(scene.words),
                source=f"drawn ground; objects: {'; '.join(corpus.EMOJI_CREDITS.values())}",
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
