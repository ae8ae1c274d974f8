"""Corpus: two emoji packages, a list of keywords and a folder of photographs -> concepts, and crops of photographs.

Sources (none is stored in the repository; the trained weights and the evaluation images carry attribution in NOTICE.md):
npm `emoji-datasource-twitter` 16 (Twemoji, CC BY 4.0), npm `emoji-datasource-google` 16 (Noto Emoji, Apache-2.0),
npm `emojilib` 4 (keywords, MIT), Debian `lomiri-wallpapers-16.04` (photographs, the CC BY and CC0 ones).
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

STYLES = {"twitter": "twemoji", "google": "noto"}
EXCLUDED_CATEGORIES = {"Flags", "Component"}
EXCLUDED_SUBCATEGORIES = {
    "family", "person-role", "person-activity", "person-sport", "person-gesture", "person-fantasy", "person-resting",
    "keycap", "alphanum",
}  # fmt: skip
SIGN_CATEGORIES = {"Symbols", "People & Body"}
SIGN_SUBCATEGORIES = {"time"}
THING_CATEGORIES = {"Animals & Nature", "Food & Drink"}
THING_SUBCATEGORIES = {"sport", "face-glasses", "face-costume", "face-smiling", "transport-air", "lock"}
FACE_SUBCATEGORIES = {
    "face-smiling", "face-affection", "face-tongue", "face-hand", "face-neutral-skeptical", "face-sleepy", "face-unwell",
    "face-hat", "face-glasses", "face-concerned", "face-negative", "face-costume", "cat-face", "monkey-face", "person",
}  # fmt: skip
# Concepts that no training step ever sees, in either style: the ground truth of restyle and of sketch-to-image.
HELD_OUT = (
    "green heart", "orange book", "tangerine", "hatching chick", "tulip", "ice cream",
    "oncoming taxi", "grinning cat face with smiling eyes", "jack-o-lantern", "basketball and hoop",
    "rabbit face", "wrapped present", "full moon with face", "hot beverage", "large blue circle", "slice of pizza",
)  # fmt: skip
# Concepts that the base has seen and the adapter of a task has not.
HELD_OUT_OF_TASK = {
    "sticker": (
        "red apple", "dog face", "hamburger", "lemon", "cherry blossom", "octopus", "sunflower", "banana", "ghost",
        "strawberry", "cactus", "penguin",
    ),
    "portrait": (
        "smiling face with sunglasses", "winking face", "face with tears of joy", "robot face", "clown face", "angry face",
        "face with party horn and party hat", "smiling cat face with heart shaped eyes", "speak no evil monkey",
        "older woman", "boy", "nerd face",
    ),
}  # fmt: skip
HELD_OUT_PHOTOS = ("sunset_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi", "umang_by_Abhishek_Mudgal")
SIZE = 64
KEYWORDS = 6  # of each concept, the first and most telling ones
# Author and licence of each photograph that is used, as its Debian package states them. The share-alike ones of the package are
# left out, so that the weights need no share-alike licence.
PHOTO_CREDITS = {
    "Picture_0B_by_freespace": ('Trevor "Freespace"', "CC BY 4.0"),
    "Picture_1A_by_freespace": ('Trevor "Freespace"', "CC BY 4.0"),
    "Wine_by_Jakkub_Mede": ("Jakub Mede", "CC BY 4.0"),
    "aitzgorri_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC BY 4.0"),
    "friends_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC BY 4.0"),
    "life_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC BY 4.0"),
    "picosdeeuropa_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC BY 4.0"),
    "seeding_by_Clements_Engelhardt": ("Clemens Engelhardt", "CC0 1.0"),
    "sunset_by_Aitzol_Berasategi": ("Aitzol Berasategi", "CC BY 4.0"),
    "umang_by_Abhishek_Mudgal": ("Abhishek Mudgal", "CC BY 4.0"),
}
EMOJI_CREDITS = {
    "twemoji": "Twemoji, CC BY 4.0, (c) Twitter, Inc and other contributors, (c) jdecked and other contributors",
    "noto": "Noto Emoji, Apache-2.0, (c) Google LLC",
}


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One emoji: its names, words that it may be called by besides, and in each style its picture as 64x64 RGBA.

    `is_sign` marks symbols, hands, clock faces, which their mirror image would make others of; `is_thing` plants, animals, food
    and few others, of which stickers are made; `is_face` faces of people, cats, monkeys and smileys.
    """

    names: tuple[str, ...]
    keywords: tuple[str, ...]
    is_sign: bool
    is_thing: bool
    is_face: bool
    cutouts: dict[str, Image.Image]

    def image(self, style: str) -> np.ndarray:
        """(64, 64, 3) uint8 over white."""
        return flatten(self.cutouts[style])


def load_concepts(npm_folder: Path) -> list[Concept]:
    """Read every kept concept that exists in both styles, in the package's own order."""
    listing = json.loads((npm_folder / "google/package/emoji.json").read_text())
    keywords = json.loads((npm_folder / "emojilib/package/dist/emoji-en-US.json").read_text())
    kept = [entry for entry in listing if _is_kept(entry)]
    return [_concept(npm_folder, entry, keywords) for entry in sorted(kept, key=lambda entry: int(entry["sort_order"]))]


def _concept(npm_folder: Path, entry: dict, keywords: dict[str, list[str]]) -> Concept:  # type: ignore[type-arg]
    names = _clean([entry["name"], *entry["short_names"]])
    character = "".join(chr(int(code, 16)) for code in entry["unified"].split("-"))
    words = [word for word in keywords.get(character, []) if word.replace("_", "").isalpha()]
    cutouts = {
        style: cutout(Image.open(npm_folder / f"{source}/package/img/{source}/64/{entry['image']}"))
        for source, style in STYLES.items()
    }
    return Concept(
        names=names,
        keywords=tuple(word for word in _clean(words) if word not in names[0])[:KEYWORDS],
        is_sign=entry["category"] in SIGN_CATEGORIES or entry["subcategory"] in SIGN_SUBCATEGORIES,
        is_thing=entry["category"] in THING_CATEGORIES or entry["subcategory"] in THING_SUBCATEGORIES,
        is_face=entry["subcategory"] in FACE_SUBCATEGORIES,
        cutouts=cutouts,
    )


def _is_kept(entry: dict) -> bool:  # type: ignore[type-arg]
    return (
        entry["category"] not in EXCLUDED_CATEGORIES
        and entry["subcategory"] not in EXCLUDED_SUBCATEGORIES
        and entry["has_img_google"]
        and entry["has_img_twitter"]
    )


def _clean(raw: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.lower().replace("_", " ").replace("-", " ").strip() for name in raw if name))


def split(concepts: list[Concept], names: Iterable[str] = HELD_OUT) -> tuple[list[Concept], list[Concept]]:
    """Return (training, held out); every one of the names must be found exactly once."""
    wanted = {name.replace("-", " ") for name in names}
    held_out = [concept for concept in concepts if concept.names[0] in wanted]
    missing = wanted - {concept.names[0] for concept in held_out}
    if missing:
        raise ValueError(f"held-out concepts not found in the corpus: {sorted(missing)}")
    return [concept for concept in concepts if concept.names[0] not in wanted], held_out


def task_split(task: str, concepts: list[Concept]) -> tuple[list[Concept], list[Concept]]:
    """Return (training, held out) of one task's adapter.

    `portrait` knows faces only, `sticker` things only, `sketch-to-image` no signs. An adapter with held-out concepts of its own
    is trained on none that the base has not seen either.
    """
    training, unseen = split(concepts)
    training = [concept for concept in training if _is_for(task, concept)]
    return split(training, HELD_OUT_OF_TASK[task]) if task in HELD_OUT_OF_TASK else (training, unseen)


def _is_for(task: str, concept: Concept) -> bool:
    match task:
        case "portrait":
            return concept.is_face
        case "sticker":
            return concept.is_thing
        case "sketch-to-image":
            return not concept.is_sign
        case _:
            return True


def cutout(image: Image.Image) -> Image.Image:
    """An image of any kind -> 64x64 RGBA."""
    return image.convert("RGBA").resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def flatten(image: Image.Image) -> np.ndarray:
    """64x64 RGBA -> (64, 64, 3) uint8 over white."""
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def load_photos(folder: Path, *, held_out: bool) -> dict[str, Image.Image]:
    """Photographs of one split by stem, each reduced to 640 pixels on the short side."""
    photos = {}
    for path in sorted(folder.glob("*.jpg")):
        if path.stem in PHOTO_CREDITS and (path.stem in HELD_OUT_PHOTOS) == held_out:
            photo = Image.open(path).convert("RGB")
            scale = 640 / min(photo.size)
            photos[path.stem] = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    return photos


def crop_scene(photo: Image.Image, rng: random.Random) -> np.ndarray:
    """A random square of a photograph as (64, 64, 3) uint8, between a third of its short side and all of it."""
    side = rng.randint(min(photo.size) // 3, min(photo.size))
    left, top = rng.randint(0, photo.width - side), rng.randint(0, photo.height - side)
    square = photo.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(square if rng.random() < 0.5 else square.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
