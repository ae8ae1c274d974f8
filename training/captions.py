"""Captions: a concept or a scene -> the prompts that its picture may have, with how often each is drawn."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from training import corpus, looks

SCENE = "scene"
DROPOUT = 0.1  # how often a picture has no caption at all, for guidance
# How often a caption is of each form; a picture without other names or keywords goes by its first name instead.
SHARES = {"name": 0.45, "other name": 0.15, "colour": 0.15, "keyword": 0.15, "no style": 0.10}


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Prompts, and the chances that each is drawn with."""

    texts: tuple[str, ...]
    chances: tuple[float, ...]


def caption(style: str, name: str) -> str:
    """The first prompt of one picture: 'noto red apple'."""
    return f"{style} {name}"


def coloured(style: str, colour: str, name: str) -> str:
    """'noto orange tangerine', and 'noto orange book' where the name says it already."""
    return caption(style, name if colour in name.split() else f"{colour} {name}")


def of_concept(concept: corpus.Concept, style: str) -> Wording:
    """Return the wordings of an emoji: all names, the name with its colour, with one keyword, and without style."""
    first, *others = concept.names
    colour = looks.colour_word(concept.cutouts[style])
    forms = {
        "name": [caption(style, first)],
        "other name": [caption(style, name) for name in others],
        "colour": [coloured(style, colour, first)],
        "keyword": [caption(style, f"{first} {word}") for word in concept.keywords],
        "no style": [first],
    }
    return _weighted({form: texts or forms["name"] for form, texts in forms.items()}, SHARES)


def of_ground(words: str) -> str:
    """Return the name that a scene has by its ground alone: 'blue striped scene' of 'blue striped scene of red apple'."""
    return words.split(" of ")[0]


def of_scene(words: str) -> Wording:
    """A scene with all that is in it, with its ground alone, or just as a scene."""
    return Wording(texts=(words, of_ground(words), SCENE), chances=(0.5, 0.25, 0.25))


def plain(texts: Iterable[str]) -> Wording:
    """These prompts, all as likely."""
    kept = tuple(texts)
    return Wording(texts=kept, chances=(1 / len(kept),) * len(kept))


def _weighted(forms: dict[str, list[str]], shares: dict[str, float]) -> Wording:
    weighted: dict[str, float] = {}
    for form, texts in forms.items():
        for text in texts:
            weighted[text] = weighted.get(text, 0.0) + shares[form] / len(texts)
    return Wording(texts=tuple(weighted), chances=tuple(weighted.values()))


def drawn(wording: Wording, generator: torch.Generator) -> int:
    """Return which of the prompts a step uses."""
    return int(torch.multinomial(torch.tensor(wording.chances), 1, generator=generator))
